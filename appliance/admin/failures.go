package admin

import (
	"net/http"
	"time"

	"chancery/appliance/oid4vci/doctor"
	"chancery/appliance/store"
)

// failureBody is a wallet's request that was refused. Nothing in it is a claim,
// a secret or a value that the wallet sent.
type failureBody struct {
	ID        string `json:"id"`
	Timestamp string `json:"timestamp"`
	Endpoint  string `json:"endpoint"`
	// OfferID is there when the request got as far as an offer.
	OfferID string `json:"offerId,omitempty"`
	// Status, Error and Description are what the wallet was answered.
	Status      int    `json:"status"`
	Error       string `json:"error"`
	Description string `json:"description,omitempty"`
	// Member was wrong, Section is where the specification says what it wants.
	Member  string `json:"member,omitempty"`
	Section string `json:"section,omitempty"`
	Advice  string `json:"advice"`
}

func describeFailure(c doctor.Case) failureBody {
	return failureBody{c.ID, c.Time.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano), c.Endpoint, c.Offer, c.Status, c.Code, c.Description, c.Member, c.Section, c.Advice()}
}

func (a *api) listFailures(r *http.Request, _ store.Operator) (result, error) {
	limit, _, err := page(r)
	if err != nil {
		return result{}, err
	}
	data := []failureBody{}
	for _, c := range a.Doctor.Latest(r.URL.Query().Get("offerId"), limit) {
		data = append(data, describeFailure(c))
	}
	return result{status: http.StatusOK, body: listBody{Data: data}}, nil
}

func (a *api) readFailure(r *http.Request, _ store.Operator) (result, error) {
	c, found := a.Doctor.Find(r.PathValue("id"))
	if !found {
		return result{}, store.ErrNotFound
	}
	return result{status: http.StatusOK, body: describeFailure(c)}, nil
}
