package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// columns is how wide plain text may get.
const columns = 96

// fill breaks text at spaces so that each line, with its indent, fits into
// width columns. A word that is too long is cut.
func fill(text, indent string, width int) string {
	room := max(width-len(indent), 20)
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > room {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			runes := []rune(word)
			lines, word = append(lines, string(runes[:room])), string(runes[room:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= room:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	lines = append(lines, line)
	return indent + strings.Join(lines, "\n"+indent)
}

// table prints rows of name and value, names padded to one width, long values
// broken into lines.
func table(w io.Writer, indent string, rows [][2]string) {
	width := 0
	for _, row := range rows {
		width = max(width, min(utf8.RuneCountInString(row[0]), 34))
	}
	for _, row := range rows {
		pad := strings.Repeat(" ", max(width-utf8.RuneCountInString(row[0]), 0))
		hang := indent + strings.Repeat(" ", width+2)
		if utf8.RuneCountInString(row[0]) > width {
			fmt.Fprintln(w, indent+row[0])
			fmt.Fprintln(w, fill(row[1], hang, columns))
			continue
		}
		fmt.Fprintln(w, indent+row[0]+pad+"  "+strings.TrimPrefix(fill(row[1], hang, columns), hang))
	}
}

// grid prints rows in columns under a head, each as wide as its longest cell.
func grid(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// printJSON prints an indented JSON value.
func printJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
