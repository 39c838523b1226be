package cli

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chancery/verifier/strictjson"

	"rsc.io/qr"
)

// offersPath is the admin API's collection of pre-authorized offers.
const offersPath = "/v1/openid/offers/pre-authorized"

type createFlags struct {
	adminFlags
	claims, mode, description string
	txCode, showQR, invert    bool
	length                    int
	expires                   time.Duration
	clientID                  string
	clientAuthentication      bool
}

var offerCreate = command{
	name: "offer create", args: "CONFIGURATION-ID...",
	summary: "Make a pre-authorized offer of one or more credential configurations",
	help: `The claims are checked now, kept encrypted until the credential is issued, and then
shredded. The link goes to standard output; a transaction code goes to standard error,
so that the two can take different ways to the person.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &createFlags{}
		f.declare(flags)
		flags.StringVar(&f.claims, "claims", "", "`FILE` with the claims, a JSON object; \"-\" is standard input")
		flags.BoolVar(&f.txCode, "tx-code", false, "protect the offer by a transaction code, which the appliance makes")
		flags.StringVar(&f.mode, "tx-code-mode", "numeric", "its `MODE`, numeric or text")
		flags.IntVar(&f.length, "tx-code-length", 0, "its length, `N` characters; default: the appliance's policy")
		flags.StringVar(&f.description, "tx-code-description", "", "`TEXT` that the wallet shows about it, at most 300 characters")
		flags.DurationVar(&f.expires, "expires", 0, "the `TIME` the offer lives, like 10m or 24h; default: the appliance's policy")
		flags.StringVar(&f.clientID, "client-id", "", "only the wallet with this client_id, `ID`, may redeem the offer")
		flags.BoolVar(&f.clientAuthentication, "client-authentication", false, "the wallet that redeems must have authenticated, by attestation or key")
		flags.BoolVar(&f.showQR, "qr", false, "draw the link as a QR code, for dark terminals")
		flags.BoolVar(&f.invert, "qr-invert", false, "draw the QR code for light terminals")
		return func(s *session, ids []string) error { return f.create(s, ids) }
	},
}

// request checks the flags and builds the API's request.
func (f *createFlags) request(s *session, ids []string) (map[string]any, error) {
	switch {
	case len(ids) == 0:
		return nil, usage("offer create: the credential configuration's id is missing")
	case f.claims == "":
		return nil, usage("--claims is missing: give the file with the claims")
	case f.mode != "numeric" && f.mode != "text":
		return nil, usage("--tx-code-mode: %q is neither numeric nor text", f.mode)
	case f.expires != 0 && f.expires < time.Second:
		return nil, usage("--expires: %s is too short: write it like 10m", f.expires)
	case !f.txCode && (f.length != 0 || f.description != ""):
		return nil, usage("--tx-code-length and --tx-code-description need --tx-code")
	}
	data, err := s.readFile(f.claims, "--claims")
	if err != nil {
		return nil, err
	}
	claims, err := strictjson.Object(data)
	if err != nil {
		return nil, fmt.Errorf("--claims: %s: %w", f.claims, err)
	}
	request := map[string]any{"credentials": ids, "claims": claims}
	if f.txCode {
		code := map[string]any{"inputMode": f.mode}
		if f.length != 0 {
			code["length"] = f.length
		}
		if f.description != "" {
			code["description"] = f.description
		}
		request["transactionCodeConfiguration"] = code
	}
	if f.clientID != "" {
		request["clientId"] = f.clientID
	}
	if f.clientAuthentication {
		request["clientAuthenticationRequired"] = true
	}
	if f.expires != 0 {
		request["expiresIn"] = durationObject(int64(f.expires / time.Second))
	}
	return request, nil
}

func (f *createFlags) create(s *session, ids []string) error {
	request, err := f.request(s, ids)
	if err != nil {
		return err
	}
	a, err := f.connect(s, true)
	if err != nil {
		return err
	}
	offer, err := a.object(http.MethodPost, offersPath, request)
	if err != nil {
		return err
	}
	link, _ := offer["uri"].(string)
	if link == "" {
		return fmt.Errorf("the admin API's answer has no uri")
	}
	if f.asJSON {
		return printJSON(s.Stdout, offer)
	}
	fmt.Fprintf(s.Stdout, "Offer    %s\nExpires  %s\n\n%s\n", valueText(orEmpty(offer["id"])), valueText(orEmpty(offer["expiresAt"])), printable(link))
	if f.showQR || f.invert {
		picture, err := drawQR(link, f.invert)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.Stdout, "\n%s\n", picture)
	}
	if code, _ := offer["transactionCode"].(string); code != "" {
		fmt.Fprintf(s.Stderr, "Transaction code, for another channel than the link: %s\n", printable(code))
	}
	return nil
}

// drawQR draws a QR code with half blocks, two rows of modules a line, with the
// quiet zone of four modules that readers need. Blocks are light: on a dark
// terminal that is the right way round.
func drawQR(text string, invert bool) (string, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", fmt.Errorf("the link does not fit into a QR code: %w", err)
	}
	const quiet = 4
	light := func(x, y int) bool { return code.Black(x, y) == invert }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			top, bottom := light(x, y), light(x, y+1)
			if y+1 >= code.Size+quiet {
				bottom = false
			}
			switch {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteRune(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

var offerList = command{
	name: "offer list", summary: "List offers, newest first",
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &listFlags{}
		f.declare(flags)
		state := flags.String("state", "", "only those in `STATE`: made, fetched, redeemed, issued, accepted, expired, cancelled, locked or failed")
		return func(s *session, args []string) error {
			return f.list(s, args, offersPath, url.Values{"state": {*state}}, "There are no offers.", showOffers)
		}
	},
}

func showOffers(w io.Writer, offers []map[string]any) {
	rows := [][]string{{"ID", "STATE", "EXPIRES", "CREDENTIALS"}}
	for _, offer := range offers {
		rows = append(rows, cells(offer, "id", "state", "expiresAt", "credentials"))
	}
	grid(w, rows)
}

var offerShow = command{
	name: "offer show", args: "ID", summary: "Show one offer, without its secrets",
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &adminFlags{}
		f.declare(flags)
		return func(s *session, args []string) error {
			id, err := one(args, "the offer's id")
			if err != nil {
				return err
			}
			a, err := f.connect(s, true)
			if err != nil {
				return err
			}
			offer, err := a.object(http.MethodGet, offersPath+"/"+url.PathEscape(id), nil)
			if err != nil {
				return err
			}
			if f.asJSON {
				return printJSON(s.Stdout, offer)
			}
			showOffer(s.Stdout, offer)
			return nil
		}
	},
}

// showOffer prints an offer, and what became of it in tables of their own.
func showOffer(w io.Writer, offer map[string]any) {
	credentials, notifications := objects(offer["issuedCredentials"]), objects(offer["notifications"])
	delete(offer, "issuedCredentials")
	delete(offer, "notifications")
	showObject(w, offer, "id", "state", "credentials", "requirements", "createdAt", "createdBy", "expiresAt", "fetchedAt", "redeemedAt", "finishedAt")
	if len(credentials) > 0 {
		rows := [][]string{{"ISSUED", "CONFIGURATION", "AUDIT LOG", "CREDENTIAL"}}
		for _, c := range credentials {
			id := valueText(orEmpty(c["id"]))
			if c["repeat"] != nil {
				id += " (again)"
			}
			entries := strings.Join(cells(c, "auditIntent", "auditOutcome"), ", ")
			rows = append(rows, append(cells(c, "issuedAt", "configuration"), entries, id))
		}
		fmt.Fprintln(w)
		grid(w, rows)
	}
	if len(notifications) > 0 {
		rows := [][]string{{"TOLD BY WALLET", "CONFIGURATION", "EVENT"}}
		for _, n := range notifications {
			rows = append(rows, cells(n, "notifiedAt", "configuration", "event"))
		}
		fmt.Fprintln(w)
		grid(w, rows)
	}
}

var offerCancel = command{
	name: "offer cancel", args: "ID...", summary: "Cancel offers; their claims are shredded",
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &adminFlags{}
		f.declare(flags)
		return func(s *session, ids []string) error {
			if len(ids) == 0 {
				return usage("offer cancel: the offer's id is missing")
			}
			a, err := f.connect(s, true)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if _, err := a.object(http.MethodDelete, offersPath+"/"+url.PathEscape(id), nil); err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
				fmt.Fprintln(s.Stdout, "Cancelled", id)
			}
			return nil
		}
	},
}
