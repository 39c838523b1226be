package iaca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// CreateCSR makes a PKCS#10 request (DER) for an IACA that another authority
// runs, signed by the key that is to be certified. It asks for the extensions of
// the plan's profile, and, where the plan has them, for the IACA's contact and
// CRL. The plan's dates are not in it: PKCS#10 has no place for them. Nothing is
// signed that the linter would refuse.
func CreateCSR(plan Plan, signer crypto.Signer) ([]byte, error) {
	linter := Linter{Profile: plan.Profile}
	throwAway, err := sameKind(signer.Public())
	if err != nil {
		return nil, err
	}
	trial, err := plan.request(throwAway)
	if err != nil {
		return nil, err
	}
	if err := refuse(linter.CSR(trial)); err != nil {
		return nil, fmt.Errorf("the request would not be right: %w", err)
	}
	der, err := plan.request(signer)
	if err != nil {
		return nil, err
	}
	if err := sameRequest(trial, der); err != nil {
		return nil, err
	}
	if err := refuse(linter.CSR(der)); err != nil {
		return nil, fmt.Errorf("the signed request is not right: %w", err)
	}
	return der, nil
}

// request signs a request for what the plan wants. The extensions are those of a
// certificate that a throw-away key signs, so that they are what Create makes.
func (p Plan) request(signer crypto.Signer) ([]byte, error) {
	template, err := p.template(signer.Public())
	if err != nil {
		return nil, err
	}
	throwAway, err := sameKind(signer.Public())
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), throwAway)
	if err != nil {
		return nil, err
	}
	model, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: model.RawSubject, ExtraExtensions: model.Extensions}, signer)
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	return der, nil
}

// sameRequest compares what was linted with what was signed; the key and its
// identifier are not the same.
func sameRequest(trial, der []byte) error {
	a, err := x509.ParseCertificateRequest(trial)
	if err != nil {
		return err
	}
	b, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if !bytes.Equal(a.RawSubject, b.RawSubject) {
		return errors.New("what was signed is not what was linted")
	}
	return sameExtensions(a.Extensions, b.Extensions)
}

// CSR holds a PKCS#10 request (DER) against the linter's profile, that of the
// certificate to be had, and returns every rule that it breaks. An extension that
// the issuer can add by itself may be missing.
func (l Linter) CSR(der []byte) []Finding {
	r := &request{}
	run := &lint{Linter: l, request: r}
	if err := unmarshal(der, r); err != nil {
		run.report("csr.parse", "not a PKCS#10 request that can be read: %v", err)
		return run.findings
	}
	if longest[l.Profile] == 0 || l.Profile == Root || l.Profile == Link {
		run.report("profile", "no request is made for the profile %q", l.Profile)
		return run.findings
	}
	if r.Info.Version != 0 {
		run.report("csr.version", "the version is %d", r.Info.Version)
	}
	extensions, count, err := r.extensionRequest()
	if count < len(r.Info.Attributes) {
		run.report("csr.attributes", "there are other attributes")
	}
	if err != nil || count != 1 {
		run.report("csr.extension-request", "extensionRequest is missing, malformed or there twice")
		return run.findings
	}
	run.key, run.extensions = r.Info.Key, extensions
	run.names(r.Info.Subject.FullBytes)
	run.keys()
	run.shared()
	if signatureAlgorithms[r.Algorithm.Algorithm.String()] == 0 {
		run.report("csr.signature.algorithm", "it is signed with %v", r.Algorithm.Algorithm)
	} else if run.public == nil {
		run.report("signature.unverified", "the signature was not verified")
	} else if verify(run.public, r.Algorithm, r.Info.Raw, r.Signature) != nil {
		run.report("csr.signature", "the signature does not verify with the key in the request")
	}
	return run.findings
}

// CheckCertificateFor holds a certificate (DER) that an external IACA issued
// against the linter's profile, its issuer, and the request (DER) that it answers:
// key, subject, extensions, and a validity that has not ended by now. It returns
// every rule that is broken; the certificate is not to be used when one of them is
// a Fault.
func (l Linter) CheckCertificateFor(csr, certificate []byte, now time.Time) []Finding {
	findings := l.Certificate(certificate)
	asked, cert := &request{}, parsed(certificate)
	run := &lint{Linter: l}
	if err := unmarshal(csr, asked); err != nil {
		run.report("csr.parse", "not a PKCS#10 request that can be read: %v", err)
	}
	extensions, _, err := asked.extensionRequest()
	if err != nil {
		run.report("csr.extension-request", "extensionRequest is malformed")
	}
	if cert == nil || run.faulty() {
		return append(findings, run.findings...)
	}
	tbs := &cert.TBS
	if !bytes.Equal(asked.Info.Key.Raw, tbs.Key.Raw) {
		run.report("answer.key", "the public key is not the request's")
	}
	if !bytes.Equal(asked.Info.Subject.FullBytes, tbs.Subject.FullBytes) {
		run.report("answer.subject", "the subject is not the request's, byte by byte")
	}
	for _, e := range extensions {
		if e.ID.Equal(oidSubjectKeyID) {
			continue // it goes with the key, and has its own rules
		}
		got := find(tbs.Extensions, e.ID)
		if got == nil || got.Critical != e.Critical || !bytes.Equal(got.Value, e.Value) {
			run.report("answer.extension", "extension %v is missing or not as it was asked for", e.ID)
		}
	}
	if until, _, err := date(tbs.Validity.NotAfter); err != nil || now.After(until) {
		run.report("answer.validity", "the validity has ended on %s", until.UTC().Format(time.DateOnly))
	}
	return append(findings, run.findings...)
}

// parsed reads a certificate; nil when it cannot be read.
func parsed(der []byte) *certificate {
	c := &certificate{}
	if unmarshal(der, c) != nil {
		return nil
	}
	return c
}
