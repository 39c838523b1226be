package ceremony

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"chancery/appliance/signer/registry"
)

// transcript renders what was made, for people to read aloud and sign.
func (a *act) transcript() (string, error) {
	evidence, err := a.Token.Evidence()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	b.WriteString("CHANCERY KEY CEREMONY\n\n")
	line("time", "%s", a.Now.UTC().Format(time.RFC3339))
	line("plan (SHA-256)", "%s", a.planHash)
	line("issuer", "%s", a.plan.Issuer)
	line("audit log", "%s, %d entries before", a.Log.Origin(), a.Log.Size())
	b.WriteString("\nTOKEN\n")
	line("module", "%s (%s)", evidence.Module, evidence.Library)
	line("manufacturer, model", "%s, %s", evidence.Manufacturer, evidence.Model)
	line("label, serial", "%s, %s", evidence.Label, evidence.Serial)
	line("hardware, firmware", "%s, %s", evidence.Hardware, evidence.Firmware)
	for _, k := range a.made {
		if err := a.keyText(&b, line, k); err != nil {
			return "", err
		}
	}
	for _, c := range a.crls {
		list, err := x509.ParseRevocationList(c.DER)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\nCRL of %s\n", c.Issuer)
		line("number", "%d", c.Number)
		line("this, next update", "%s, %s", list.ThisUpdate.Format(time.RFC3339), list.NextUpdate.Format(time.RFC3339))
		line("SHA-256", "%s", fingerprint(c.DER))
		line("published at", "%s", c.URL)
	}
	b.WriteString("\nSIGNED BY THOSE PRESENT\n\n")
	for _, role := range []string{"ceremony administrator", "key custodian", "key custodian", "witness", "auditor"} {
		fmt.Fprintf(&b, "  %-24s ______________________________\n\n", role)
	}
	return b.String(), nil
}

func (a *act) keyText(b *strings.Builder, line func(name, format string, args ...any), k registry.Key) error {
	fmt.Fprintf(b, "\nKEY %s\n", k.Label)
	line("purpose, algorithm", "%s, %s", k.Purpose, k.Algorithm)
	line("CKA_ID", "%s", hex.EncodeToString(k.ID))
	if len(k.PublicKey) > 0 {
		line("public key (SHA-256)", "%s", fingerprint(k.PublicKey))
	}
	var told []string
	for _, attribute := range []struct {
		name string
		is   *bool
	}{
		{"sensitive", k.Attributes.Sensitive}, {"always sensitive", k.Attributes.AlwaysSensitive}, {"never extractable", k.Attributes.NeverExtractable},
		{"local", k.Attributes.Local}, {"modifiable", k.Attributes.Modifiable}, {"extractable", k.Attributes.Extractable},
	} {
		switch {
		case attribute.is == nil:
			told = append(told, attribute.name+" not told")
		case *attribute.is:
			told = append(told, attribute.name+" yes")
		default:
			told = append(told, attribute.name+" no")
		}
	}
	line("read back", "%s", strings.Join(told, ", "))
	line("wrapping out refused", "%s", strings.Join(k.Attributes.WrapRefused, ", "))
	if len(k.Profile.Formats) > 0 {
		line("may sign", "%v %s", k.Profile.Formats, strings.Join(k.Profile.Types, " "))
		line("", "at most %d h valid, %d a minute (0: no cap), issuer %q", int(k.Profile.LongestValidity().Hours()), k.Profile.RatePerMinute, k.Profile.Issuer)
	}
	if k.DID != "" {
		line("DID", "%s", k.DID)
		line("verification method", "%s", k.KeyID)
	}
	if len(k.Chain) == 0 {
		return nil
	}
	certificate, err := x509.ParseCertificate(k.Chain[0])
	if err != nil {
		return err
	}
	line("certificate", "%s", certificate.Subject)
	line("issued by", "%s", certificate.Issuer)
	line("serial", "%x", certificate.SerialNumber)
	line("valid", "%s to %s", certificate.NotBefore.Format(time.RFC3339), certificate.NotAfter.Format(time.RFC3339))
	line("SHA-256", "%s", fingerprint(k.Chain[0]))
	return nil
}

// fingerprint is a SHA-256 in groups that people can read aloud.
func fingerprint(data []byte) string {
	sum := sha256.Sum256(data)
	text := hex.EncodeToString(sum[:])
	var groups []string
	for i := 0; i < len(text); i += 8 {
		groups = append(groups, text[i:i+8])
	}
	return strings.Join(groups, " ")
}
