package iaca

import "slices"

// Audience says whose rules count.
type Audience string

// The audiences.
const (
	// Everyone is the specifications and every verifier in the field that goes
	// beyond them, read as strictly as the strictest of them. The empty Audience is Everyone.
	Everyone Audience = "everyone"
	// ISO is the specifications alone.
	ISO Audience = "iso"
	// AAMVA is Everyone and the North American guidelines: a state in every certificate.
	AAMVA Audience = "aamva"
	// EUDI is Everyone and ETSI TS 119 412-6, which wants further extensions.
	EUDI Audience = "eudi"
)

// Audiences are all there are.
var Audiences = []Audience{Everyone, ISO, AAMVA, EUDI}

// Kind is what a rule is about.
type Kind string

// The kinds.
const (
	// KindCertificate rules are about certificates; those on subject, key and
	// extensions hold for certification requests as well.
	KindCertificate Kind = "certificate"
	// KindCRL rules are about certificate revocation lists.
	KindCRL Kind = "crl"
	// KindCSR rules are about PKCS#10 certification requests.
	KindCSR Kind = "csr"
	// KindAnswer rules compare a certificate with the request that it answers.
	KindAnswer Kind = "answer"
)

// Rule is one rule of the linter.
type Rule struct {
	ID       string   `json:"rule"`
	Kind     Kind     `json:"kind"`
	Severity Severity `json:"severity"`
	// Audience is ISO for what every audience wants, Everyone for what a verifier in
	// the field enforces beyond the specifications, and AAMVA or EUDI for what only
	// that audience wants.
	Audience Audience `json:"audience"`
	// Demand is what must be so.
	Demand string `json:"demand"`
	// Source is the specification and its section, or the verifier that enforces it.
	Source string `json:"source"`
	Remedy string `json:"remedy"`
}

// CountsFor tells whether an audience wants the rule kept.
func (r Rule) CountsFor(a Audience) bool {
	return r.Audience == ISO || r.Audience == a || r.Audience == Everyone && a != ISO
}

// Rules lists every rule of the linter, in the order in which it reads.
func Rules() []Rule { return slices.Clone(rules) }

// ruleByID finds a rule.
var ruleByID = func() map[string]Rule {
	m := map[string]Rule{}
	for _, r := range rules {
		m[r.ID] = r
	}
	return m
}()

const (
	annexB = "ISO/IEC 18013-5 Annex B"
	both   = annexB + "; RFC 5280 "
)

var rules = slices.Concat(formRules, nameRules, keyRules, extensionRules, issuerRules, linkRules, audienceRules, crlRules, csrRules, answerRules)

var formRules = []Rule{
	{"parse", KindCertificate, Fault, ISO, "one X.509 certificate in DER, and nothing after it", both + "§4.1", "give one certificate in DER or PEM"},
	{"profile", KindCertificate, Fault, ISO, "a profile that is known, and for a request one that another authority certifies", "this program",
		"use iaca, link, document-signer, credential-signer, status-signer or metadata-signer; a request cannot be for an iaca or link"},
	{"version", KindCertificate, Fault, ISO, "X.509 version 3", both + "§4.1.2.1", "make an X.509 v3 certificate"},
	{"unique-id", KindCertificate, Fault, ISO, "no issuerUniqueID and no subjectUniqueID", both + "§4.1.2.8", "leave both out"},
	{"serial.positive", KindCertificate, Fault, ISO, "a serial number above zero", both + "§4.1.2.2", "use a random serial number with the top bit clear"},
	{"serial.size", KindCertificate, Fault, ISO, "a serial number of at least 63 random bits", annexB + "; walt.id refuses fewer than 8 octets", "use 159 random bits"},
	{"serial.octets", KindCertificate, Fault, ISO, "a serial number of at most 20 octets", both + "§4.1.2.2; walt.id", "use 159 random bits"},
	{"serial.recommended", KindCertificate, Warning, ISO, "a serial number of 71 random bits or more", annexB, "use 159 random bits"},
	{"signature.algorithm", KindCertificate, Fault, ISO, "signed with ECDSA and SHA-256, SHA-384 or SHA-512", annexB, "sign with ECDSA and SHA-256, SHA-384 or SHA-512"},
	{"signature.algorithm.equal", KindCertificate, Fault, ISO, "the same signature algorithm inside and outside of what is signed", "RFC 5280 §4.1.1.2", "copy the AlgorithmIdentifier of the certificate into what is signed"},
	{"signature.parameters", KindCertificate, Fault, ISO, "no parameters beside the ECDSA signature algorithm", "RFC 5758 §3.2", "leave the parameters out, NULL too"},
	{"signature.hash", KindCertificate, Warning, Everyone, "a hash as long as the signing key: SHA-256 for P-256, SHA-384 for P-384, SHA-512 for P-521", "the pairs of RFC 7518 §3.4, which every verifier has", "sign with the hash that fits the key"},
	{"validity.encoding", KindCertificate, Fault, ISO, "dates until 2049 as UTCTime, later ones as GeneralizedTime, to the second and in Zulu time", "RFC 5280 §4.1.2.5", "encode the date as RFC 5280 says"},
	{"validity.order", KindCertificate, Fault, ISO, "an end after the beginning", "RFC 5280 §4.1.2.5", "let it end after it begins"},
	{"validity.longest", KindCertificate, Fault, ISO, "at most 20 years for an iaca or link, 1187 days for a status signer, 457 days for the others", annexB + " tables B.1, B.3, B.9; walt.id", "shorten the validity"},
	{"validity.root-days", KindCertificate, Fault, Everyone, "at most 7300 days for an iaca or link", "walt.id counts 365 days for each of the 20 years", "shorten the validity by five days"},
	{"crypto-x509", KindCertificate, Fault, Everyone, "readable by a strict parser", "Go's crypto/x509, which many verifiers use", "correct what the parser names"},
}

var nameRules = []Rule{
	{"subject", KindCertificate, Fault, ISO, "a subject that can be read", "RFC 5280 §4.1.2.6", "encode the name as RFC 5280 says"},
	{"subject.country", KindCertificate, Fault, ISO, "exactly one countryName", annexB + " tables B.1, B.3; isomdl", "give exactly one countryName"},
	{"subject.country.code", KindCertificate, Fault, ISO, "a countryName of two capital letters", annexB + " tables B.1, B.3; walt.id", "use ISO 3166-1 alpha-2 in capitals"},
	{"subject.country.encoding", KindCertificate, Fault, ISO, "countryName as PrintableString", annexB, "encode it as PrintableString"},
	{"subject.state", KindCertificate, Fault, ISO, "at most one stateOrProvinceName", annexB + " tables B.1, B.3", "give at most one stateOrProvinceName"},
	{"subject.state.code", KindCertificate, Warning, ISO, "stateOrProvinceName an ISO 3166-2 code of the country", "ISO/IEC 18013-5 issuing_jurisdiction, which has the same value", "use ISO 3166-2, for instance US-UT, or issuing_jurisdiction cannot match"},
	{"subject.common-name", KindCertificate, Fault, ISO, "exactly one commonName, not empty", annexB + " tables B.1, B.3; walt.id", "give exactly one commonName"},
	{"subject.serial-number", KindCertificate, Fault, ISO, "the attribute serialNumber as PrintableString", annexB, "encode it as PrintableString"},
	{"subject.encoding", KindCertificate, Fault, ISO, "attributes as PrintableString or UTF8String", annexB, "use PrintableString or UTF8String"},
	{"subject.characters", KindCertificate, Fault, ISO, "only characters that the string's type has", "RFC 5280 §4.1.2.4; ITU-T X.680 §41.4", "use UTF8String, in UTF-8, for what PrintableString does not have"},
}

var keyRules = []Rule{
	{"key.type", KindCertificate, Fault, ISO, "an EC key; below the root Ed25519 or Ed448, too", annexB + " tables B.1, B.3", "use P-256 or P-384"},
	{"key.parameters", KindCertificate, Fault, ISO, "no parameters beside Ed25519 or Ed448", "RFC 8410 §3", "leave the parameters out"},
	{"key.named-curve", KindCertificate, Fault, ISO, "the curve by its name", annexB + "; RFC 5480 §2.1.1", "encode the curve as namedCurve, not by its parameters"},
	{"key.curve", KindCertificate, Fault, ISO, "P-256, P-384, P-521 or brainpoolP256r1, P320r1, P384r1, P512r1", annexB + " tables B.1, B.3", "use P-256 or P-384"},
	{"key.curve.nist", KindCertificate, Fault, Everyone, "a curve that verifiers have: no brainpool curve and no Ed448", "isomdl, walt.id, auth0-mdl, Go's crypto/x509", "use P-256 or P-384"},
	{"key.curve.readers", KindCertificate, Warning, Everyone, "P-256 or P-384", "isomdl has no other curves", "use P-256 or P-384, which work everywhere"},
	{"key.point", KindCertificate, Fault, ISO, "an uncompressed point on the curve", annexB + "; RFC 5480 §2.2", "encode the point uncompressed, 04 first"},
	{"key.own", KindCertificate, Fault, ISO, "another key than the issuer's", "ISO/IEC 18013-5 C.1.4.4: a renewal has a new key", "give it a key of its own"},
	{"subject-key-identifier", KindCertificate, Fault, ISO, "subjectKeyIdentifier", annexB + " tables B.1 to B.9", "add the SHA-1 of the public key's bits"},
	{"subject-key-identifier.sha1", KindCertificate, Fault, ISO, "subjectKeyIdentifier the SHA-1 of the subjectPublicKey's bits", annexB + "; RFC 5280 §4.2.1.2 method 1; isomdl", "use SHA-1 of the public key's bits"},
}

var extensionRules = []Rule{
	{"extension.twice", KindCertificate, Fault, ISO, "each extension once", "RFC 5280 §4.2; the EUDI iOS library", "keep one"},
	{"extension.default", KindCertificate, Fault, ISO, "critical FALSE left out", "ITU-T X.690 §11.5: DER has no default values", "leave critical out when it is FALSE"},
	{"extension.forbidden", KindCertificate, Fault, ISO, "no policyMappings, nameConstraints, policyConstraints, inhibitAnyPolicy, freshestCRL", annexB + "; isomdl", "leave it out"},
	{"extension.critical", KindCertificate, Fault, ISO, "keyUsage, basicConstraints and a document signer's extendedKeyUsage critical, all others not", annexB + " tables B.1 to B.9; walt.id", "mark it as the table of the profile says"},
	{"extension.unknown", KindCertificate, Fault, ISO, "nothing critical that is not in the profile", annexB + "; isomdl, walt.id, Java's PKIX", "make it non-critical or leave it out"},
	{"extension.other", KindCertificate, Warning, Everyone, "nothing that is not in the profile", "what passes every verifier", "leave it out unless somebody needs it"},
	{"key-usage", KindCertificate, Fault, ISO, "keyUsage digitalSignature alone; for an iaca or link keyCertSign and cRLSign alone", annexB + " tables B.1, B.3; isomdl, walt.id", "set exactly these bits"},
	{"basic-constraints", KindCertificate, Fault, ISO, "basicConstraints CA with a path length of 0", annexB + " tables B.1, B.2; isomdl, walt.id", "set CA with a path length of 0"},
	{"basic-constraints.leaf", KindCertificate, Fault, ISO, "no basicConstraints below the root", annexB + " tables B.3 to B.9", "leave it out"},
	{"extended-key-usage", KindCertificate, Fault, ISO, "extendedKeyUsage 1.0.18013.5.1.2 in a document signer's certificate", annexB + " table B.3; isomdl, walt.id", "set 1.0.18013.5.1.2"},
	{"extended-key-usage.only", KindCertificate, Fault, ISO, "no purpose besides 1.0.18013.5.1.2; iso and eudi allow 1.0.23220.4.1.2 beside it", annexB + " table B.3; isomdl and walt.id refuse any other", "set 1.0.18013.5.1.2 and nothing else"},
	{"extended-key-usage.root", KindCertificate, Fault, Everyone, "no extendedKeyUsage in an iaca or link", "isomdl; verifiers that nest purposes refuse what is under it", "leave it out"},
	{"extended-key-usage.purpose", KindCertificate, Fault, Everyone, "one key for one purpose: below an iaca no mdoc's, TLS or OCSP purpose but the profile's own", "ISO/IEC 18013-5 tables B.3 to B.9, ISO/IEC 23220-4; a verifier would take one for the other", "leave that purpose out"},
	{"extended-key-usage.critical", KindCertificate, Warning, ISO, "a status signer's extendedKeyUsage not critical", annexB + " table B.9", "make it non-critical"},
	{"subject-alt-name", KindCertificate, Warning, Everyone, "a credential signer's subjectAltName with the issuer's URL or host", "SD-JWT VC up to draft 9, which compares them with iss", "name the issuer's URL and host"},
	{"issuer-alt-name", KindCertificate, Fault, ISO, "issuerAltName with an e-mail address or a URI", annexB + " tables B.1 to B.3; isomdl, walt.id", "give the issuing authority's e-mail address or URL"},
	{"issuer-alt-name.recommended", KindCertificate, Warning, Everyone, "issuerAltName in a status signer's certificate as in a document signer's", "what passes every verifier; table B.9 does not list it", "give the issuing authority's e-mail address or URL"},
	{"issuer-alt-name.kind", KindCertificate, Fault, Everyone, "issuerAltName with e-mail addresses and URIs alone", "isomdl", "use rfc822Name and uniformResourceIdentifier alone"},
	{"issuer-alt-name.value", KindCertificate, Fault, ISO, "well-formed e-mail addresses and URIs in issuerAltName", "RFC 5280 §4.2.1.6", "give a bare e-mail address, or a URI with its scheme"},
	{"crl-distribution-points", KindCertificate, Fault, ISO, "cRLDistributionPoints in link, document signer and credential signer, and well-formed wherever it is", annexB + " tables B.2, B.3; isomdl", "name the IACA's CRL"},
	{"crl-distribution-points.root", KindCertificate, Fault, Everyone, "cRLDistributionPoints in an iaca", "ISO/IEC 18013-5:2021 table B.1; isomdl, the EUDI iOS library", "name the IACA's CRL"},
	{"crl-distribution-points.members", KindCertificate, Fault, ISO, "distribution points without reasons and cRLIssuer", annexB + "; isomdl", "leave out reasons and cRLIssuer"},
	{"crl-distribution-points.uri", KindCertificate, Fault, ISO, "distribution points named by fullName with URIs", annexB + "; isomdl", "name the CRL by a URI"},
	{"crl-distribution-points.scheme", KindCertificate, Fault, Everyone, "http or https URIs in distribution points", "walt.id", "publish the CRL under an http or https URI"},
	{"authority-key-identifier", KindCertificate, Fault, ISO, "authorityKeyIdentifier below the root", annexB + " tables B.2 to B.9; isomdl, walt.id", "use the issuer's subjectKeyIdentifier"},
	{"authority-key-identifier.members", KindCertificate, Fault, ISO, "authorityKeyIdentifier with keyIdentifier alone", annexB + " table B.3", "keep keyIdentifier alone"},
}

var issuerRules = []Rule{
	{"authority-key-identifier.equal", KindCertificate, Fault, ISO, "authorityKeyIdentifier the issuer's subjectKeyIdentifier, in a root its own", annexB + " table B.3; isomdl, multipaz", "use the issuer's subjectKeyIdentifier"},
	{"root.issuer", KindCertificate, Fault, ISO, "a root's issuer its subject, byte by byte", annexB + " table B.1", "make issuer and subject the same bytes"},
	{"leaf.self-issued", KindCertificate, Fault, ISO, "a signer's issuer the IACA", annexB + " table B.3; HAIP §6.1.1; isomdl, the OpenID conformance suite", "issue it under the IACA"},
	{"issuer.bytes", KindCertificate, Fault, ISO, "the issuer the IACA's subject, byte by byte", annexB + "; isomdl", "copy the IACA's subject bytes"},
	{"chain.depth", KindCertificate, Fault, ISO, "a self-signed IACA as issuer", annexB + ": path length 0", "issue it under the IACA, not under an intermediate"},
	{"signature", KindCertificate, Fault, ISO, "a signature by the issuer's key", "RFC 5280 §6.1.3", "let the issuer's own key sign"},
	{"signature.unverified", KindCertificate, Warning, ISO, "a signature that this program can verify", "this program has NIST curves and Ed25519 alone", "make the key readable, or verify the signature with openssl"},
	{"validity.nested", KindCertificate, Fault, Everyone, "valid only while the issuer is", "what verifiers enforce in effect: the issuer's certificate must be valid, too", "keep it within the issuer's validity"},
	{"country.equal", KindCertificate, Fault, ISO, "countryName the issuer's", annexB + " table B.3; isomdl, walt.id", "use the issuer's countryName"},
	{"state.equal", KindCertificate, Fault, ISO, "stateOrProvinceName the issuer's, or none if it has none", annexB + " table B.3; isomdl, walt.id", "use the issuer's stateOrProvinceName, or none if it has none"},
}

var linkRules = []Rule{
	{"link.subject", KindCertificate, Fault, ISO, "a link's subject the new root's, byte by byte", annexB + " table B.2", "copy the new root's subject bytes"},
	{"link.key", KindCertificate, Fault, ISO, "a link's key the new root's", annexB + " table B.2", "certify the new root's key"},
	{"link.validity", KindCertificate, Fault, ISO, "a link that ends no later than the old root", annexB + " table B.2", "shorten the validity"},
	{"link.subject-alt-name", KindCertificate, Fault, ISO, "the new name as directoryName in subjectAltName when the name changes", annexB + " table B.2", "add subjectAltName with the new root's name"},
	{"link.path", KindCertificate, Warning, Everyone, "the same name on both roots", "RFC 5280 §6.1.4 (l): under path length 0 only a self-issued certificate is passed", "publish it for VICAL operators; validators of paths will not cross it"},
}

var audienceRules = []Rule{
	{"aamva.state", KindCertificate, Fault, AAMVA, "stateOrProvinceName in every certificate", "AAMVA mDL implementation guidelines; isomdl's AAMVA rules", "give stateOrProvinceName in ISO 3166-2, for instance US-UT"},
	{"eudi.organization", KindCertificate, Fault, EUDI, "organizationName in a signer's subject", "ETSI TS 119 412-6 clause 4; ETSI EN 319 412-3 §4.2.1", "name the legal person"},
	{"eudi.organization-identifier", KindCertificate, Fault, EUDI, "organizationIdentifier in a signer's subject, for instance VATDE-123456789", "ETSI TS 119 412-6 clause 4; ETSI EN 319 412-1 §5.1.4", "add the attribute 2.5.4.97"},
	{"eudi.certificate-policies", KindCertificate, Fault, EUDI, "certificatePolicies in a signer's certificate", "ETSI TS 119 412-6 clause 4", "name the policy, NCP+ for instance"},
	{"eudi.subject-alt-name", KindCertificate, Fault, EUDI, "the subject's contact in subjectAltName: an e-mail address or a URI", "ETSI TS 119 412-6 clause 4", "add a URI or an e-mail address"},
	{"eudi.authority-information-access", KindCertificate, Warning, EUDI, "authorityInfoAccess with caIssuers", "ETSI TS 119 412-6 clause 4", "name the URL of the IACA's certificate"},
	{"eudi.qc-statements", KindCertificate, Warning, EUDI, "qcStatements with id-etsi-qct-pid 0.4.0.194126.1.1", "ETSI TS 119 412-6 clause 4", "add the statement"},
}

const tableB10 = annexB + " table B.10"

var crlRules = []Rule{
	{"crl.parse", KindCRL, Fault, ISO, "one CRL in DER, and nothing after it", tableB10 + "; RFC 5280 §5.1", "give one CRL in DER or PEM"},
	{"crl.pem", KindCRL, Warning, ISO, "published in DER, as application/pkix-crl", "RFC 5280 §4.2.1.13", "publish the DER: clients of RFC 5280 cannot read PEM"},
	{"crl.version", KindCRL, Fault, ISO, "version 2", tableB10, "make a v2 CRL"},
	{"crl.signature.algorithm", KindCRL, Fault, ISO, "signed with ECDSA and SHA-256, SHA-384 or SHA-512", tableB10, "sign with ECDSA and SHA-256, SHA-384 or SHA-512"},
	{"crl.signature.algorithm.equal", KindCRL, Fault, ISO, "the same signature algorithm inside and outside of what is signed", "RFC 5280 §5.1.1.2; isomdl", "copy the AlgorithmIdentifier of the list into what is signed"},
	{"crl.next-update", KindCRL, Fault, ISO, "nextUpdate, after thisUpdate", tableB10, "set nextUpdate"},
	{"crl.cadence", KindCRL, Fault, ISO, "nextUpdate within 90 days", tableB10, "plan the next list within 90 days"},
	{"crl.revoked.empty", KindCRL, Fault, ISO, "revokedCertificates left out while nothing is revoked", tableB10 + "; RFC 5280 §5.1.2.6", "leave out the empty list"},
	{"crl.entry-extensions", KindCRL, Fault, ISO, "entries of serial number and date alone", tableB10, "leave out reason codes"},
	{"crl.number", KindCRL, Fault, ISO, "cRLNumber, not negative, of at most 20 octets", tableB10 + "; RFC 5280 §5.2.3", "number the list"},
	{"crl.partial", KindCRL, Fault, ISO, "a full and direct list: no deltaCRLIndicator, issuingDistributionPoint, freshestCRL", tableB10, "issue one full list"},
	{"crl.extensions", KindCRL, Fault, ISO, "authorityKeyIdentifier and cRLNumber alone, each once", tableB10, "leave out all others"},
	{"crl.extension.critical", KindCRL, Fault, ISO, "no critical extension", tableB10, "make it non-critical"},
	{"crl.authority-key-identifier", KindCRL, Fault, ISO, "authorityKeyIdentifier with keyIdentifier alone", tableB10, "use the IACA's subjectKeyIdentifier, alone"},
	{"crl.authority-key-identifier.equal", KindCRL, Fault, ISO, "authorityKeyIdentifier the IACA's subjectKeyIdentifier", tableB10, "use the IACA's subjectKeyIdentifier"},
	{"crl.issuer", KindCRL, Fault, ISO, "the issuer the IACA's subject, byte by byte", tableB10, "copy the IACA's subject bytes"},
	{"crl.signature", KindCRL, Fault, ISO, "a signature by the IACA's key", "RFC 5280 §6.3.3", "let the IACA's own key sign"},
	{"crl.monotonic", KindCRL, Fault, ISO, "a higher cRLNumber and no earlier thisUpdate than the list before", tableB10 + "; RFC 5280 §5.2.3", "count on from the list before"},
	{"crl.delay", KindCRL, Warning, ISO, "a new entry published within 48 hours of its revocation", tableB10, "issue the list at once when a certificate is revoked"},
}

var csrRules = []Rule{
	{"csr.parse", KindCSR, Fault, ISO, "one PKCS#10 request in DER, and nothing after it", "RFC 2986 §4", "give one request in DER or PEM"},
	{"csr.version", KindCSR, Fault, ISO, "version 1, encoded as 0", "RFC 2986 §4.1", "make a v1 request"},
	{"csr.signature.algorithm", KindCSR, Fault, ISO, "signed with ECDSA and SHA-256, SHA-384 or SHA-512, or with Ed25519", annexB + "; RFC 8410 §3", "sign with the algorithm of the key"},
	{"csr.signature", KindCSR, Fault, ISO, "a signature by the key that is to be certified", "RFC 2986 §4.2", "let that key sign: it proves possession"},
	{"csr.attributes", KindCSR, Fault, ISO, "extensionRequest alone", "RFC 2986 §4.1; a challengePassword would be readable", "leave out all other attributes"},
	{"csr.extension-request", KindCSR, Fault, ISO, "exactly one extensionRequest", "RFC 2985 §5.4.2", "ask for the profile's extensions in one extensionRequest"},
}

var answerRules = []Rule{
	{"answer.key", KindAnswer, Fault, ISO, "the key of the request", "RFC 2986 §3", "certify the key that the request was signed with"},
	{"answer.subject", KindAnswer, Fault, ISO, "the subject of the request, byte by byte", "RFC 2986 §3; " + annexB, "copy the request's subject bytes"},
	{"answer.extension", KindAnswer, Fault, ISO, "every extension that was asked for, as it was asked for", "RFC 2985 §5.4.2", "copy the requested extensions"},
	{"answer.validity", KindAnswer, Fault, ISO, "a validity that has not ended", "RFC 5280 §4.1.2.5", "issue it anew, with an end in the future"},
}
