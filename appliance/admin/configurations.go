package admin

import (
	"net/http"
	"sort"

	"chancery/appliance/store"
	"chancery/issuance/configuration"
)

// configurationBody is a configuration as the API shows it.
type configurationBody struct {
	ID       string      `json:"id"`
	Format   string      `json:"format"`
	Scope    string      `json:"scope,omitempty"`
	Signer   string      `json:"signer"`
	Version  string      `json:"version"`
	Validity string      `json:"validity"`
	Claims   []claimBody `json:"claims"`
	// Metadata is what wallets are told, without the signing algorithms, which
	// follow from the key; lists leave it out.
	Metadata map[string]any `json:"metadata,omitempty"`
}

type claimBody struct {
	Path     []string `json:"path"`
	MapFrom  string   `json:"mapFrom,omitempty"`
	Type     string   `json:"type"`
	Required bool     `json:"required"`
}

func show(c *configuration.Configuration) configurationBody {
	b := configurationBody{ID: c.ID, Format: string(c.Format), Scope: c.Scope, Signer: c.Signer, Version: c.Version, Validity: c.Validity}
	for _, claim := range c.Claims {
		from := claim.MapFrom
		if from == "" && claim.Value == nil && claim.Type != configuration.TypeAgeOver {
			from = claim.Path[len(claim.Path)-1]
		}
		b.Claims = append(b.Claims, claimBody{claim.Path, from, string(claim.Type), claim.Required})
	}
	return b
}

func (a *api) listConfigurations(*http.Request, store.Operator) (result, error) {
	data := make([]configurationBody, 0, len(a.Configurations))
	for _, c := range a.Configurations {
		data = append(data, show(c))
	}
	sort.Slice(data, func(i, j int) bool { return data[i].ID < data[j].ID })
	return result{status: http.StatusOK, body: listBody{Data: data}}, nil
}

func (a *api) readConfiguration(r *http.Request, _ store.Operator) (result, error) {
	c := a.Configurations[r.PathValue("id")]
	if c == nil {
		return result{}, store.ErrNotFound
	}
	b := show(c)
	b.Metadata = c.Metadata(nil)
	delete(b.Metadata, "credential_signing_alg_values_supported")
	return result{status: http.StatusOK, body: b}, nil
}
