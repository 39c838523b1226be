package cli

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// listFlags ask for one page of a list.
type listFlags struct {
	adminFlags
	limit, cursor string
}

func (f *listFlags) declare(flags *flag.FlagSet) {
	f.adminFlags.declare(flags)
	flags.StringVar(&f.limit, "limit", "50", "show at most `N`, 1 to 1000")
	flags.StringVar(&f.cursor, "cursor", "", "go on where an earlier list ended")
}

// list asks for a page and prints it with show, or says that there is nothing.
// Of query, what is empty is left out.
func (f *listFlags) list(s *session, args []string, path string, query url.Values, nothing string, show func(io.Writer, []map[string]any)) error {
	if err := none(args); err != nil {
		return err
	}
	n, err := parseLimit(f.limit)
	if err != nil {
		return err
	}
	a, err := f.connect(s, true)
	if err != nil {
		return err
	}
	query.Set("limit", strconv.Itoa(n))
	query.Set("cursor", f.cursor)
	for name := range query {
		if query.Get(name) == "" {
			query.Del(name)
		}
	}
	answer, err := a.object(http.MethodGet, path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(s.Stdout, answer)
	}
	data := objects(answer["data"])
	if len(data) == 0 {
		fmt.Fprintln(s.Stdout, nothing)
		return nil
	}
	show(s.Stdout, data)
	if next, _ := answer["nextCursor"].(string); next != "" {
		fmt.Fprintf(s.Stdout, "\nMore: --cursor %s\n", printable(next))
	}
	return nil
}

// parseLimit reads a list's length.
func parseLimit(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, usage("--limit: %q is no number from 1 to 1000", text)
	}
	return n, nil
}

// objects returns the objects of a JSON list.
func objects(value any) []map[string]any {
	list, _ := value.([]any)
	var all []map[string]any
	for _, item := range list {
		if object, ok := item.(map[string]any); ok {
			all = append(all, object)
		}
	}
	return all
}

// cells are an object's members as a row of a table has them.
func cells(object map[string]any, names ...string) []string {
	row := make([]string, len(names))
	for i, name := range names {
		row[i] = valueText(orEmpty(object[name]))
	}
	return row
}
