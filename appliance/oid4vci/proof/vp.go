package proof

import (
	"crypto"
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/mr-tron/base58"

	"chancery/appliance/oid4vci/jwt"
	"chancery/issuance"
)

// The cryptosuites.
const (
	ecdsaJCS = "ecdsa-jcs-2019"
	eddsaJCS = "eddsa-jcs-2022"
)

// maxProofValue bounds a proofValue in characters: 96 bytes in base58btc are 132.
const maxProofValue = 140

// baseContexts are what a presentation's @context begins with (VCDM 2.0 §4.3, VCDM 1.1 §4.1).
var baseContexts = []any{"https://www.w3.org/ns/credentials/v2", "https://www.w3.org/2018/credentials/v1"}

// presentation holds a Verifiable Presentation against App. F.2 and F.4.
func (c *checker) presentation(at place, vp map[string]any) error {
	if c.settings.Attestation != nil {
		return at.wrong("", "a key attestation is required, which this proof type cannot carry", sectionMetadata)
	}
	if !slices.Contains(list(vp["type"]), any("VerifiablePresentation")) {
		return at.wrong("type", "type must have VerifiablePresentation", sectionDIVP)
	}
	proof, err := c.integrityProof(at, vp)
	if err != nil {
		return err
	}
	if err := c.checkOptions(at, proof); err != nil {
		return err
	}
	url, _ := proof["verificationMethod"].(string)
	key, id, err := c.keyFromDID(at, "proof.verificationMethod", url, sectionDIVP)
	if err != nil {
		return err
	}
	if holder, has := vp["holder"]; has {
		if object, ok := holder.(map[string]any); ok {
			holder = object["id"]
		}
		if holder != id {
			return at.wrong("holder", "holder is not the controller of the verification method", sectionDIVP)
		}
	}
	document, err := secured(at, vp, proof)
	if err != nil {
		return err
	}
	if err := verifyIntegrity(at, document, proof, key); err != nil {
		return err
	}
	h, err := bare(key)
	if err != nil {
		return at.wrong("proof.verificationMethod", "the key cannot be bound", sectionDIVP)
	}
	h.DID = id
	return c.signed(at, h)
}

// list is a value that may stand alone or in an array.
func list(value any) []any {
	if elements, ok := value.([]any); ok {
		return elements
	}
	return []any{value}
}

// integrityProof returns the one proof that is judged. Of a proof set (VC Data
// Integrity 1.0 §2.1.1) it is the one whose cryptosuite is the metadata's; the
// others, of which nothing is made, need not hold. Two of them could name two
// keys, of which one presentation asks for one credential: that is refused.
func (c *checker) integrityProof(at place, vp map[string]any) (map[string]any, error) {
	var found map[string]any
	for _, element := range list(vp["proof"]) {
		proof, ok := element.(map[string]any)
		if !ok {
			return nil, at.wrong("proof", "proof must be a data integrity proof", sectionDIVP)
		}
		suite, _ := proof["cryptosuite"].(string)
		if proof["type"] != "DataIntegrityProof" || !slices.Contains(c.settings.Algorithms, suite) {
			continue
		}
		if found != nil {
			return nil, at.wrong("proof", "one proof alone may name the key", sectionDIVP)
		}
		found = proof
	}
	if found == nil {
		return nil, at.wrong("proof.cryptosuite", "there is no data integrity proof with one of the metadata's cryptosuites", sectionDIVP)
	}
	if _, has := found["previousProof"]; has {
		return nil, at.wrong("proof.previousProof", "chains of proofs are not supported", sectionDIVP)
	}
	return found, nil
}

// checkOptions reads what the proof says of itself.
func (c *checker) checkOptions(at place, proof map[string]any) error {
	if proof["proofPurpose"] != "authentication" {
		return at.wrong("proof.proofPurpose", "proofPurpose must be authentication", sectionDIVP)
	}
	if domain := list(proof["domain"]); len(domain) != 1 || domain[0] != c.rules.Audience {
		return at.wrong("proof.domain", "domain must be the credential issuer identifier, letter for letter", sectionDIVP)
	}
	// The nonce tells the time, so that created may be missing (App. F.4).
	if value, has := proof["created"]; has {
		created, ok := dateTime(value)
		if !ok {
			return at.wrong("proof.created", "created is not a date and time", sectionDIVP)
		}
		if err := c.checkMade(at, "proof.created", created); err != nil {
			return err
		}
	}
	if value, has := proof["expires"]; has {
		if expires, ok := dateTime(value); !ok || !c.rules.Now.Before(expires.Add(maxAhead)) {
			return at.wrong("proof.expires", "the proof has expired", sectionDIVP)
		}
	}
	challenge, ok := proof["challenge"].(string)
	if !ok || challenge == "" {
		return at.wrong("proof.challenge", "challenge is missing", sectionDIVP)
	}
	c.nonce(challenge)
	return nil
}

// dateTime reads an XML Schema dateTimeStamp; one without offset is in UTC (VC
// Data Integrity 1.0 §2.1).
func dateTime(value any) (time.Time, bool) {
	text, _ := value.(string)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05", text)
	}
	return t, err == nil
}

// secured returns the document as it was signed: without its proofs and, when
// the proof has an @context of its own, with that one, which the document's must
// begin with (VC Data Integrity ECDSA Cryptosuites 1.0 §3.3.2).
func secured(at place, vp, proof map[string]any) (map[string]any, error) {
	document := make(map[string]any, len(vp))
	for name, value := range vp {
		if name != "proof" {
			document[name] = value
		}
	}
	if signed, has := proof["@context"]; has {
		contexts, all := list(signed), list(vp["@context"])
		if len(contexts) > len(all) || !reflect.DeepEqual(contexts, all[:len(contexts)]) {
			return nil, at.wrong("proof.@context", "@context must begin with the proof's", sectionDIVP)
		}
		document["@context"] = signed
	}
	if contexts := list(document["@context"]); len(contexts) == 0 || !slices.Contains(baseContexts, contexts[0]) {
		return nil, at.wrong("@context", "@context must begin with that of verifiable credentials", sectionDIVP)
	}
	return document, nil
}

// verifyIntegrity checks the signature over the hashes of the proof's options
// and of the document, each in canonical form (VC Data Integrity ECDSA
// Cryptosuites 1.0 §3.3, EdDSA Cryptosuites 1.0 §3.3).
func verifyIntegrity(at place, document, proof map[string]any, key crypto.PublicKey) error {
	hash, ok := hashOf(proof["cryptosuite"], key)
	if !ok {
		return at.wrong("proof.cryptosuite", "the cryptosuite does not fit the key", sectionDIVP)
	}
	text, _ := proof["proofValue"].(string)
	if len(text) < 2 || len(text) > maxProofValue || text[0] != 'z' {
		return at.wrong("proof.proofValue", "proofValue is not a signature in base58btc", sectionDIVP)
	}
	signature, err := base58.Decode(text[1:])
	if err != nil {
		return at.wrong("proof.proofValue", "proofValue is not a signature in base58btc", sectionDIVP)
	}
	options := make(map[string]any, len(proof))
	for name, value := range proof {
		if name != "proofValue" {
			options[name] = value
		}
	}
	var message []byte
	for _, object := range []map[string]any{options, document} {
		data, err := canonical(object)
		if err != nil {
			return at.wrong("", "the presentation has no canonical form", sectionDIVP)
		}
		h := hash.New()
		h.Write(data)
		message = h.Sum(message)
	}
	if !jwt.Verify(key, message, signature) {
		return at.wrong("proof.proofValue", "the proof's signature does not verify", sectionVerify)
	}
	return nil
}

// hashOf returns the hash that a cryptosuite uses with a key.
func hashOf(suite any, key crypto.PublicKey) (crypto.Hash, bool) {
	algorithm, err := issuance.AlgorithmFor(key)
	switch {
	case err != nil:
	case suite == ecdsaJCS && (algorithm == issuance.ES256 || algorithm == issuance.ES384):
		return algorithm.Hash(), true
	case suite == eddsaJCS && algorithm == issuance.EdDSA:
		return crypto.SHA256, true
	}
	return 0, false
}

// canonical writes an object in the JSON Canonicalization Scheme (RFC 8785).
func canonical(object map[string]any) ([]byte, error) {
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	value := jsontext.Value(data)
	err = value.Canonicalize()
	return value, err
}
