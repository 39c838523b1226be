package cli

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

var eventsList = command{
	name: "events list", summary: "List what happened, newest first",
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &listFlags{}
		f.declare(flags)
		kind := flags.String("type", "", "only events of this `TYPE`, like offer.failed")
		subject := flags.String("subject", "", "only events about this `ID`, for instance an offer's")
		return func(s *session, args []string) error {
			return f.list(s, args, "/v1/events", url.Values{"type": {*kind}, "subject": {*subject}}, "There are no events.", showEvents)
		}
	},
}

// showEvents prints a line for each event, and what more it says below.
func showEvents(w io.Writer, events []map[string]any) {
	for _, e := range events {
		row := cells(e, "timestamp", "type", "actor", "subject")
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-24s  %-20s  %-10s  %s", row[0], row[1], row[2], row[3]), " "))
		if data := valueText(orEmpty(e["data"])); data != "" {
			fmt.Fprintln(w, fill(data, "    ", columns))
		}
	}
}

// failuresPath is the admin API's collection of wallets' refused requests.
const failuresPath = "/v1/openid/failures"

var eventsExplain = command{
	name: "events explain", args: "[ID]", summary: "Say in plain words why wallets' requests were refused",
	help: `ID is the Request-Id header of the answer that the wallet got, or an offer's id: then
what is known of the offer's refused requests is shown, newest first. Without an ID those
of all offers are, and those that did not get as far as an offer. The appliance keeps the
latest few thousand since its start, without claims, codes or tokens.`,
	set: func(flags *flag.FlagSet) func(*session, []string) error {
		f := &adminFlags{}
		f.declare(flags)
		limit := flags.String("limit", "10", "show at most `N` requests, 1 to 1000")
		return func(s *session, args []string) error {
			n, err := parseLimit(*limit)
			if err == nil && len(args) > 1 {
				_, err = one(args, "an id")
			}
			if err != nil {
				return err
			}
			a, err := f.connect(s, true)
			if err != nil {
				return err
			}
			query := url.Values{"limit": {strconv.Itoa(n)}}
			switch {
			case len(args) == 0:
				return a.explainLatest(query, f.asJSON, "No refused request is known.")
			case len(args[0]) == len("00000000-0000-0000-0000-000000000000"):
				return a.explainOffer(args[0], query, f.asJSON)
			}
			return a.explainRequest(args[0], f.asJSON)
		}
	},
}

func (a *adminClient) explainRequest(id string, asJSON bool) error {
	failure, err := a.object(http.MethodGet, failuresPath+"/"+url.PathEscape(id), nil)
	if err != nil {
		return fmt.Errorf("%s: %w\n  only the latest refused requests since the appliance's start are kept", printable(id), err)
	}
	if asJSON {
		return printJSON(a.s.Stdout, failure)
	}
	explain(a.s.Stdout, failure)
	return nil
}

// explainOffer says where the offer stands, too, and that there is one.
func (a *adminClient) explainOffer(id string, query url.Values, asJSON bool) error {
	offer, err := a.object(http.MethodGet, offersPath+"/"+url.PathEscape(id), nil)
	if err != nil {
		return fmt.Errorf("%s: %w", printable(id), err)
	}
	if !asJSON {
		fmt.Fprintf(a.s.Stdout, "The offer is %s.\n\n", valueText(orEmpty(offer["state"])))
	}
	query.Set("offerId", id)
	return a.explainLatest(query, asJSON, "No refused request is known that got as far as this offer; \"chancery events explain\"\nwithout an id shows the others.")
}

// explainLatest prints the failures that query asks for, or that there is nothing.
func (a *adminClient) explainLatest(query url.Values, asJSON bool, nothing string) error {
	answer, err := a.object(http.MethodGet, failuresPath+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(a.s.Stdout, answer)
	}
	failures := objects(answer["data"])
	if len(failures) == 0 {
		fmt.Fprintln(a.s.Stdout, nothing)
	}
	for i, failure := range failures {
		if i > 0 {
			fmt.Fprintln(a.s.Stdout)
		}
		explain(a.s.Stdout, failure)
	}
	return nil
}

// explain prints one refused request.
func explain(w io.Writer, failure map[string]any) {
	head := cells(failure, "timestamp", "endpoint", "status", "error")
	fmt.Fprintf(w, "%s  The %s endpoint refused a wallet's request: %s %s\n", head[0], head[1], head[2], head[3])
	var rows [][2]string
	for _, r := range [][2]string{{"Wrong in it", "member"}, {"The wallet was told", "description"}, {"What is wanted is in", "section"}, {"What helps", "advice"}, {"Offer", "offerId"}, {"Request", "id"}} {
		if text := valueText(orEmpty(failure[r[1]])); text != "" {
			rows = append(rows, [2]string{r[0], text})
		}
	}
	table(w, "  ", rows)
}
