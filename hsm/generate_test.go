package hsm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// TestNothingIsLeftOfAFailedGeneration interrupts the making of a key at every
// step: what was made is gone, and the label can be used.
func TestNothingIsLeftOfAFailedGeneration(t *testing.T) {
	token, fault, key := faulty(t, nil)
	token.pauses.brief = 0
	ctx := context.Background()
	for name, orders := range map[string][]string{
		"refused, twice":                        {"fail C_GenerateKeyPair 0x13 2 0"},
		"made, then an error, twice":            {"late C_GenerateKeyPair 0x13 2 0"},
		"made, then the device failed":          {"late C_GenerateKeyPair 0x30 2 0"},
		"made, then the sessions died":          {"late C_GenerateKeyPair 0xB3 2 0", "fail C_FindObjectsInit 0xB3 1 1"},
		"the public key cannot be read":         {"fail C_GetAttributeValue 0x12 1 0"},
		"it is not found":                       {"fail C_FindObjects 0x5 1 2"},
		"an attribute is not told":              {"fail C_GetAttributeValue 0x12 1 2"},
		"lost while its attributes are read":    {"fail C_GetAttributeValue 0x32 1 6"},
		"lost while it is tried to wrap it out": {"fail C_WrapKey 0xB3 1 1"},
		"it does not sign":                      {"fail C_Sign 0x21 1 0"},
		"its signature is not one":              {"corrupt 1"},
		"lost when it signs":                    {"fail C_Sign 0xB3 1 0"},
		"and it cannot be destroyed at first":   {"fail C_Sign 0xB3 1 0", "fail C_DestroyObject 0xB3 1 0"},
	} {
		t.Run(name, func(t *testing.T) {
			label := newLabel()
			fault.Order(t, orders...)
			if _, err := token.Generate(ctx, KeySpec{label, issuance.ES256}); err == nil {
				t.Fatal("the key was made")
			} else {
				t.Log(err)
			}
			fault.Order(t)
			labels, err := token.Labels()
			if err != nil || slices.Contains(labels, label) {
				t.Errorf("left in the token: %q, %v", labels, err)
			}
			refuses(t, token, label, ClassKeyMissing)
			generateKey(t, token, label, issuance.ES256)
			sign(t, token, label)
			sign(t, token, key)
		})
	}
}

// TestATokenThatWantsLessInATemplate refuses the first template, as a TPM does
// that is told about verifying: the second is taken, the proof is the same.
func TestATokenThatWantsLessInATemplate(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	fault.Order(t, "fail C_GenerateKeyPair 0x12 1 0")
	record := generateKey(t, token, newLabel(), issuance.ES256)
	sign(t, token, record.Label)
	if breach := record.Attributes.breach(false, func() bool { return true }); breach != "" {
		t.Error(breach)
	}
}

// TestDestroyIsRetried loses the token between the halves of a key: in the end
// both are gone, and that is no failure.
func TestDestroyIsRetried(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	token.pauses.brief = 0
	for _, order := range []string{"fail C_DestroyObject 0xB3 1 0", "late C_DestroyObject 0x30 1 0", "fail C_DestroyObject 0xB3 1 1", "late C_DestroyObject 0x30 1 1"} {
		record := generateKey(t, token, newLabel(), issuance.ES256)
		fault.Order(t, order)
		if err := token.Destroy(context.Background(), record.KeyRef); err != nil {
			t.Errorf("%s: %v", order, err)
		}
		fault.Order(t)
		if labels, err := token.Labels(); err != nil || slices.Contains(labels, record.Label) {
			t.Errorf("%s: left %q, %v", order, labels, err)
		}
	}
}

// TestTheDirectoryIsSynced: a software token does not sync what it writes, so a
// key counts only when its folder is on disk.
func TestTheDirectoryIsSynced(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not on this machine: apt-get install strace")
	}
	const made = "the key is made\n"
	trace := filepath.Join(t.TempDir(), "trace")
	here, out, err := hsmtest.Child(t, "strace", "-f", "-e", "trace=syncfs,write,ftruncate", "-o", trace)
	if here {
		token := openToken(t, config(t))
		generateKey(t, token, newLabel(), issuance.ES256)
		os.Stdout.WriteString(made)
		return
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	calls := string(data)
	synced, told := strings.Index(calls, "syncfs("), strings.Index(calls, strings.TrimSpace(made))
	if synced < 0 || told < synced {
		t.Fatalf("the key was told of before the folder was synced")
	}
	// The token's own writes are those of ftruncate; all of the key's come before.
	if last := regexp.MustCompile(`ftruncate\(`).FindAllStringIndex(calls, -1); len(last) == 0 || last[len(last)-1][0] > synced {
		t.Error("the token wrote to its folder after it was synced, or not at all")
	}
}

// TestWhatIsNotOnDiskIsNotMade lets the sync fail.
func TestWhatIsNotOnDiskIsNotMade(t *testing.T) {
	cfg := config(t)
	cfg.SyncDirectory = filepath.Join(cfg.SyncDirectory, "elsewhere")
	token := openToken(t, cfg)
	label := newLabel()
	_, err := token.Generate(context.Background(), KeySpec{label, issuance.ES256})
	wantClass(t, err, ClassRefused)
	if labels, err := token.Labels(); err != nil || len(labels) != 0 {
		t.Errorf("left in the token: %q, %v", labels, err)
	}
	refuses(t, token, label, ClassKeyMissing)
	token.cfg.SyncDirectory = "" // a token that syncs itself
	record := generateKey(t, token, label, issuance.ES256)
	token.cfg.SyncDirectory = cfg.SyncDirectory
	wantClass(t, token.Destroy(context.Background(), record.KeyRef), ClassRefused)
}
