package verifier

import (
	"os/exec"
	"strings"
	"testing"
)

// The verifier is worth something only because it shares nothing with what
// makes credentials: no package of the issuing side, no COSE library.
func TestSharesNothingWithTheIssuer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-test", ".", "../wallet").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		for _, banned := range []string{"chancery/issuance", "chancery/appliance", "chancery/hsm", "chancery/config", "github.com/veraison/go-cose", "github.com/miekg/pkcs11"} {
			if name == banned || strings.HasPrefix(name, banned+"/") {
				t.Errorf("%s is among the dependencies", name)
			}
		}
	}
}
