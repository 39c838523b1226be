package cli

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// deferredPath is the admin API's collection of credentials that an operator decides.
const deferredPath = "/v1/openid/deferred"

var deferredList = command{
	name: "deferred list", summary: "List credentials that an operator has to approve, newest first",
	help: `No claims are shown: look up in your own system for whom the offer was made, by the
offer's id, then approve or refuse.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &listFlags{}
		f.declare(flags)
		state := flags.String("state", "pending", "only those in `STATE`: pending, approved, refused, issued or ended; \"all\" for all")
		return func(s *session, args []string) error {
			query, nothing := url.Values{"state": {*state}}, "Nothing is "+printable(*state)+"."
			if *state == "all" {
				query, nothing = url.Values{}, "There is nothing."
			}
			return f.list(s, args, deferredPath, query, nothing, showDeferred)
		}
	},
}

// showDeferred prints a block for each: two identifiers do not fit on a line.
func showDeferred(w io.Writer, list []map[string]any) {
	for i, d := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		head := cells(d, "id", "state")
		fmt.Fprintf(w, "%s  %s\n", head[0], head[1])
		delete(d, "id")
		delete(d, "state")
		showObject(w, d, "offerId", "configuration", "requestedAt", "decidedAt", "decidedBy", "reason")
	}
}

var deferredApprove = command{
	name: "deferred approve", args: "ID...", summary: "Approve credentials; each is signed when its wallet comes again",
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &adminFlags{}
		f.declare(flags)
		return func(s *session, ids []string) error { return f.decide(s, ids, "approve", "Approved", nil) }
	},
}

var deferredRefuse = command{
	name: "deferred refuse", args: "ID...", summary: "Refuse credentials; the wallets are told, but not why",
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &adminFlags{}
		f.declare(flags)
		reason := flags.String("reason", "", "`TEXT` for colleagues, at most 200 characters; it is kept and stays in the appliance")
		return func(s *session, ids []string) error {
			var body any
			if *reason != "" {
				body = map[string]string{"reason": *reason}
			}
			return f.decide(s, ids, "refuse", "Refused", body)
		}
	},
}

// decide sends the same decision about each.
func (f *adminFlags) decide(s *session, ids []string, verb, done string, body any) error {
	if len(ids) == 0 {
		return usage("deferred %s: the id is missing; \"chancery deferred list\" has it", verb)
	}
	a, err := f.connect(s, true)
	if err != nil {
		return err
	}
	for _, id := range ids {
		decided, err := a.object(http.MethodPost, deferredPath+"/"+url.PathEscape(id)+"/"+verb, body)
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		if f.asJSON {
			err = printJSON(s.Stdout, decided)
		} else {
			_, err = fmt.Fprintln(s.Stdout, done, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
