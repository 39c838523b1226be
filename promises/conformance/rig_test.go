// Package conformance holds the numbered conformance checks of OpenID4VCI 1.0
// and HAIP 1.0 against running appliances: the shipped binaries, a SoftHSM token,
// TLS. Each test bears the numbers of its checks. What a wallet sends is made
// with go-jose, which shares nothing with the code that reads it.
package conformance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The demonstration's configurations.
const (
	mdl       = "org.iso.18013.5.1.mDL"
	pidMdoc   = "eu.europa.ec.eudi.pid.mdoc"
	pidSDJWT  = "eu.europa.ec.eudi.pid.sdjwt"
	residence = "org.example.residence.jwt"
)

// Configurations that every instance has besides, all of them SD-JWT VCs with
// the PID's claims; see extraConfigurations.
const (
	unbound  = "check.unbound"  // without key binding
	approved = "check.approval" // an operator approves each
	attested = "check.attested" // a key attestation with high levels is demanded; jwt and attestation proofs
	single   = "check.single"   // batch_size 1 while the metadata says 10
	byProof  = "check.proofs"   // jwt, attestation and di_vp proofs
)

const extraConfigurations = `
check.unbound:  key_binding = false
check.approval: approval = true|poll_interval = "1s"
check.attested: proof_types = ["jwt", "attestation"]|batch_size = 5|[key_attestation]|key_storage = ["iso_18045_high", "iso_18045_moderate"]|user_authentication = ["iso_18045_high"]
check.single:   batch_size = 1
check.proofs:   proof_types = ["jwt", "attestation", "di_vp"]|batch_size = 10
`

// bin is where the binaries are built, apart from the tree's own.
var bin string

// instances are what was started, by name.
var instances struct {
	sync.Mutex
	byName map[string]*instance
}

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if bin, err = os.MkdirTemp("", "chancery-bin-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(bin)
	build := exec.Command("make", "-s", "build", "BIN="+bin)
	build.Dir, build.Stderr = filepath.Join("..", ".."), os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the binaries do not build:", err)
		return
	}
	code = m.Run()
	for _, i := range instances.byName {
		i.stop()
	}
}

// instance is a running appliance.
type instance struct {
	dir, run       string
	environment    []string
	env            map[string]string
	issuer, admin  string
	client         *http.Client
	attester       attester
	nonces, haipOn bool // DPoP nonces and everything that HAIP demands
}

// settings change the configuration of an instance.
type settings struct {
	// path is the identifier's.
	path string
	// replace are texts of chancery.toml and what takes their place.
	replace map[string]string
	// issuer are further members of [issuer], sections further sections.
	issuer, sections string
	// prepared may change the state folder before the start; nil changes nothing.
	prepared func(run string)
}

// plain is the demonstration's appliance with further configurations.
func plain(t testing.TB) *instance { return start(t, "plain", settings{}) }

// haip demands what HAIP 1.0 demands of a pre-authorized code flow, all of it
// with nonces and challenges; its identifier has a path.
func haip(t testing.TB) *instance {
	i := start(t, "haip", settings{path: "/tenant", replace: map[string]string{"anonymous_access = true": "anonymous_access = false"},
		sections: "[issuer.dpop]\nrequired = true\nnonces = true\n\n[issuer.wallet_attestation]\nchallenges = true\nmax_age = \"1h\"\n\n[issuer.key_attestation]\nnonce = true\n"})
	i.nonces, i.haipOn = true, true
	return i
}

// sealed demands encryption of everything, answers a wrong transaction code as
// 1.1 does, has an authorization endpoint, and knows no retries.
func sealed(t testing.TB) *instance {
	return start(t, "sealed", settings{issuer: "retries = false\ntransaction_code_error = \"invalid_tx_code\"\nauthorization_endpoint = true\n",
		sections: "[issuer.encryption]\nrequest = \"required\"\nresponse = \"required\"\n"})
}

// draft serves wallets of "draft-13" or "draft-15" too; refresh tokens are on.
func draft(t testing.TB, name string) *instance {
	return start(t, name, settings{path: "/" + name, issuer: "compatibility = \"" + name + "\"\nstrictness = \"lenient\"\n", sections: "[issuer.refresh]\nenabled = true\n"})
}

// start returns the instance of that name, started when it is asked for first.
func start(t testing.TB, name string, s settings) *instance {
	t.Helper()
	instances.Lock()
	defer instances.Unlock()
	if instances.byName == nil {
		instances.byName = map[string]*instance{}
	}
	if i := instances.byName[name]; i != nil {
		return i
	}
	// A Unix socket's path is short, so the folder is not t.TempDir's.
	dir, err := os.MkdirTemp("", "chancery-")
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	i := &instance{dir: dir, run: filepath.Join(dir, "run")}
	i.environment = append(os.Environ(), "CHANCERY_PORT="+ports[0], "CHANCERY_ADMIN_PORT="+ports[1], "CHANCERY_PATH="+s.path)
	instances.byName[name] = i
	i.demo(t, "prepare")
	i.configure(t, s)
	if s.prepared != nil {
		s.prepared(i.run)
	}
	i.demo(t, "up")
	i.connect(t)
	return i
}

func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

func (i *instance) demo(t testing.TB, command string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "demo"), "-source", filepath.Join("..", ".."), "-run", i.run, command)
	cmd.Env = i.environment
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("demo %s: %v\n%s", command, err, out)
	}
}

// configure changes chancery.toml and adds the further configurations.
func (i *instance) configure(t testing.TB, s settings) {
	t.Helper()
	path := filepath.Join(i.run, "chancery.toml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "[issuer]\n", "[issuer]\n"+s.issuer, 1)
	for old, replacement := range s.replace {
		if strings.Count(text, old) != 1 {
			t.Fatalf("chancery.toml does not hold %q once", old)
		}
		text = strings.Replace(text, old, replacement, 1)
	}
	// A section of TOML stands before the arrays of tables within it.
	text = strings.Replace(text, "\n[[issuer.wallet_attestation.providers]]", "\n"+s.sections+"\n[[issuer.wallet_attestation.providers]]", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(i.run, "configurations")
	base, err := os.ReadFile(filepath.Join(folder, pidSDJWT+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(extraConfigurations) {
		id, members, found := strings.Cut(strings.TrimSpace(line), ":")
		if !found {
			continue
		}
		text := strings.Replace(strings.ReplaceAll(string(base), `"`+pidSDJWT+`"`, `"`+id+`"`), "batch_size = 10\n", "", 1)
		text = strings.Replace(text, "\n[[display]]", "\n"+strings.ReplaceAll(strings.TrimSpace(members), "|", "\n")+"\n\n[[display]]", 1)
		if err := os.WriteFile(filepath.Join(folder, id+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// connect reads the instance's settings and makes a client that trusts its CA alone.
func (i *instance) connect(t testing.TB) {
	t.Helper()
	f, err := os.Open(filepath.Join(i.run, "env"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i.env = map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), "=")
		i.env[name] = strings.Trim(value, "'")
	}
	i.issuer, i.admin = i.env["ISSUER_URL"], i.env["ADMIN_URL"]
	pem, err := os.ReadFile(i.env["TLS_CA_FILE"])
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal("the CA's file:", err)
	}
	i.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	i.attester = loadAttester(t, i.env["ATTESTER_DIR"])
}

func (i *instance) stop() {
	cmd := exec.Command(filepath.Join(bin, "demo"), "-source", filepath.Join("..", ".."), "-run", i.run, "down")
	cmd.Env = i.environment
	_ = cmd.Run() // whatever it says, the folder goes
	os.RemoveAll(i.dir)
}

// answer is an HTTP answer, read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// object reads the body as a JSON object.
func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(a.body, &object); err != nil {
		t.Fatalf("%d %.300q: %v", a.status, a.body, err)
	}
	return object
}

// text returns a member of the body that is a string.
func (a answer) text(t testing.TB, name string) string {
	t.Helper()
	text, _ := a.object(t)[name].(string)
	return text
}

// do sends a request to a path below the identifier, or to a URL. header holds
// names and values in turn; a name may come again.
func (i *instance) do(t testing.TB, method, target string, body []byte, header ...string) answer {
	t.Helper()
	return i.send(t, method, target, bytes.NewReader(body), header...)
}

// send is do for a body that may not tell its length.
func (i *instance) send(t testing.TB, method, target string, body io.Reader, header ...string) answer {
	t.Helper()
	if !strings.HasPrefix(target, "https://") {
		target = i.issuer + target
	}
	request, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n+1 < len(header); n += 2 {
		request.Header.Add(header[n], header[n+1])
	}
	response, err := i.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, data}
}

// operator sends a request to the admin API with a JSON body, nil for none.
func (i *instance) operator(t testing.TB, method, path string, body any) answer {
	t.Helper()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	return i.do(t, method, i.admin+path, data, "Authorization", "Bearer "+i.env["ADMIN_TOKEN"], "Content-Type", "application/json")
}

// refused checks an error answer: its status, one of the codes, and that nothing
// stands in the body but what may (checks 99, 173, 174, 175, 272).
func refused(t testing.TB, a answer, status int, codes ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %.300s", a.status, status, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("Cache-Control %q, Content-Type %q", a.header.Get("Cache-Control"), a.header.Get("Content-Type"))
	}
	object := a.object(t)
	known := false
	for _, code := range codes {
		known = known || object["error"] == code
	}
	if !known {
		t.Errorf("error %v, want %v: %.300s", object["error"], codes, a.body)
	}
	for name, value := range object {
		text, _ := value.(string)
		if name != "error" && name != "error_description" || strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }) {
			t.Errorf("member %q: %v", name, value)
		}
	}
}

// offer is an offer with the secrets in it.
type offer struct {
	id, uri, reference, code, txCode string
}

// sample returns a configuration's sample claims.
func sample(t testing.TB, id string) json.RawMessage {
	t.Helper()
	if strings.HasPrefix(id, "check.") {
		id = pidSDJWT
	}
	data, err := os.ReadFile(filepath.Join("..", "..", "examples", "claims", id+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// offer makes an offer of one configuration; change may change the request.
func (i *instance) offer(t testing.TB, id string, change func(request map[string]any)) offer {
	t.Helper()
	request := map[string]any{"credentials": []string{id}, "claims": sample(t, id)}
	if change != nil {
		change(request)
	}
	a := i.operator(t, http.MethodPost, "/v1/openid/offers/pre-authorized", request)
	if a.status != http.StatusCreated {
		t.Fatalf("offer: %d %.500s", a.status, a.body)
	}
	o := offer{id: a.text(t, "id"), uri: a.text(t, "uri"), txCode: a.text(t, "transactionCode")}
	link, err := url.Parse(o.uri)
	if err != nil {
		t.Fatal(err)
	}
	o.reference = link.Query().Get("credential_offer_uri")
	var object struct {
		Grants map[string]struct {
			Code string `json:"pre-authorized_code"`
		} `json:"grants"`
	}
	if err := json.Unmarshal(i.do(t, http.MethodGet, o.reference, nil).body, &object); err != nil {
		t.Fatal(err)
	}
	o.code = object.Grants[grantType].Code
	return o
}

// withTxCode asks for a transaction code of six digits.
func withTxCode(request map[string]any) {
	request["transactionCodeConfiguration"] = map[string]any{"inputMode": "numeric", "length": 6, "description": "Sent to you by letter."}
}

const grantType = "urn:ietf:params:oauth:grant-type:pre-authorized_code"
