package admin

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"image/png"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"chancery/appliance/signer/signertest"
)

// TestQR: both pictures of an offer's link read back as the link, check 18.
func TestQR(t *testing.T) {
	r := newRig(t, signertest.Options{})
	body := map[string]any{"credentials": []string{residenceID}, "claims": claims(t, residenceID)}
	for kind, mediaType := range map[string]string{"svg": "image/svg+xml", "png": "image/png"} {
		a := r.post(t, offersPath+"?qr="+kind, body)
		var created createdBody
		a.into(t, &created)
		data, found := strings.CutPrefix(created.QR, "data:"+mediaType+";base64,")
		image, err := base64.StdEncoding.DecodeString(data)
		if a.status != http.StatusCreated || !found || err != nil {
			t.Fatalf("%s: %d %.60q %v", kind, a.status, created.QR, err)
		}
		if got := modules(t, kind, image).text(t); got != created.URI {
			t.Errorf("%s says %q, want %q", kind, got, created.URI)
		}
	}
	if created := r.create(t, body); created.QR != "" {
		t.Error("a picture nobody asked for")
	}
	if e := faulty(t, r.post(t, offersPath+"?qr=gif", body), http.StatusBadRequest, "BadRequest"); e.params() != "qr" || e.Details[0].Location != "query" {
		t.Errorf("%+v", e.Details)
	}
}

// TestRenderQR draws a link that the caller has.
func TestRenderQR(t *testing.T) {
	r := newRig(t, signertest.Options{})
	draw := func(link, accept string) answer {
		return r.do(t, http.MethodPost, "/v1/openid/offers/qr", strings.NewReader(fmt.Sprintf(`{"uri":%q}`, link)), "Content-Type", "application/json", "Accept", accept)
	}
	for _, link := range []string{"openid-credential-offer://?credential_offer_uri=https%3A%2F%2Fissuer.example.com%2Foffers%2FDWDZb3nuMcPRJBaM5vHkdE9YmPDBBCeDWDZb3nuMc", "haip-vci://?credential_offer_uri=https%3A%2F%2Fissuer.example.com%2Fa%2Foffers%2FDWDZb3nuMcPRJBaM5vHkdE9YmPDBBCeDWDZb3nuMcPRJBaM5vHkdE", "https://wallet.example.com/invite?credential_offer_uri=https%3A%2F%2Fissuer.example.com%2Foffers%2FDWDZb3nuMcPRJBaM5vHkdE9YmPDBBCe"} {
		for accept, kind := range map[string]string{"": "svg", "*/*": "svg", "image/svg+xml": "svg", "image/png": "png", "text/html, image/png;q=0.9": "png", "image/svg+xml, image/png": "svg"} {
			a := draw(link, accept)
			if want := map[string]string{"svg": "image/svg+xml", "png": "image/png"}[kind]; a.status != http.StatusOK || a.header.Get("Content-Type") != want || a.header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%q: %d %v", accept, a.status, a.header)
			}
			if got := modules(t, kind, a.body).text(t); got != link {
				t.Errorf("%q, want %q", got, link)
			}
		}
	}
	for _, link := range []string{"", "http://issuer.example.com", "javascript:alert(1)", "mailto:x", "https://x/" + strings.Repeat("x", maxLink)} {
		if e := faulty(t, draw(link, ""), http.StatusBadRequest, "BadRequest"); e.params() != "uri" {
			t.Errorf("%q: %+v", link, e.Details)
		}
	}
	faulty(t, r.post(t, "/v1/openid/offers/qr", `{"link":"x"}`), http.StatusBadRequest, "BadRequest")
}

// matrix is a QR code without its quiet zone, rows first; true is dark.
type matrix [][]bool

// modules reads a picture and checks its quiet zone of four modules.
func modules(t *testing.T, kind string, image []byte) matrix {
	t.Helper()
	var whole matrix
	if kind == "png" {
		whole = fromPNG(t, image)
	} else {
		whole = fromSVG(t, image)
	}
	side := len(whole)
	for y, row := range whole {
		for x, dark := range row {
			if dark && (min(x, y) < 4 || max(x, y) >= side-4) {
				t.Fatalf("the quiet zone is dark at %d,%d", x, y)
			}
		}
	}
	var m matrix
	for _, row := range whole[4 : side-4] {
		m = append(m, row[4:side-4])
	}
	return m
}

func fromPNG(t *testing.T, data []byte) matrix {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	const scale = 8
	side := picture.Bounds().Dx() / scale
	m := make(matrix, side)
	for y := range m {
		m[y] = make([]bool, side)
		for x := range m[y] {
			red, _, _, _ := picture.At(x*scale+scale/2, y*scale+scale/2).RGBA()
			m[y][x] = red < 1<<15
		}
	}
	return m
}

func fromSVG(t *testing.T, data []byte) matrix {
	t.Helper()
	var svg struct {
		ViewBox string `xml:"viewBox,attr"`
		Paths   []struct {
			D string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal(data, &svg); err != nil {
		t.Fatal(err)
	}
	var side int
	if _, err := fmt.Sscanf(svg.ViewBox, "0 0 %d", &side); err != nil || len(svg.Paths) != 2 {
		t.Fatalf("%s", data)
	}
	m := make(matrix, side)
	for y := range m {
		m[y] = make([]bool, side)
	}
	for _, run := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(svg.Paths[1].D, -1) {
		var n [4]int
		for i := range n {
			var err error
			if n[i], err = strconv.Atoi(run[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if n[2] != n[3] {
			t.Fatalf("%s does not close", run[0])
		}
		for x := range n[2] {
			m[n[1]][n[0]+x] = true
		}
	}
	return m
}

// layouts are the versions that links need, at error correction level M
// (ISO/IEC 18004:2015 tables 9, E.1): alignment centres, data bytes of each block.
var layouts = map[int]struct{ centres, blocks []int }{
	6:  {[]int{6, 34}, []int{27, 27, 27, 27}},
	7:  {[]int{6, 22, 38}, []int{31, 31, 31, 31}},
	8:  {[]int{6, 24, 42}, []int{38, 38, 39, 39}},
	9:  {[]int{6, 26, 46}, []int{36, 36, 36, 37, 37}},
	10: {[]int{6, 28, 50}, []int{43, 43, 43, 43, 44}},
}

// text reads a code in byte mode; there is nothing to correct in a picture.
func (m matrix) text(t *testing.T) string {
	t.Helper()
	version := (len(m) - 17) / 4
	layout, known := layouts[version]
	if !known {
		t.Fatalf("version %d", version)
	}
	format := m.format()
	if format>>13 != 0 { // 00 is M
		t.Fatalf("error correction level %d", format>>13)
	}
	words := m.words(format>>10&7, layout.centres)
	data := make([][]byte, len(layout.blocks))
	longest := layout.blocks[len(layout.blocks)-1]
	for i := range longest { // blocks are interleaved
		for b, length := range layout.blocks {
			if i < length {
				data[b] = append(data[b], words[0])
				words = words[1:]
			}
		}
	}
	stream := bytes.Join(data, nil)
	at := 0
	bits := func(n int) (v int) {
		for range n {
			v = v<<1 | int(stream[at/8]>>(7-at%8)&1)
			at++
		}
		return v
	}
	if mode := bits(4); mode != 4 {
		t.Fatalf("mode %d", mode)
	}
	length := bits(8)
	if version > 9 {
		length = length<<8 | bits(8)
	}
	text := make([]byte, length)
	for i := range text {
		text[i] = byte(bits(8))
	}
	return string(text)
}

// format reads the 15 bits beside the upper left finder.
func (m matrix) format() (v int) {
	for i := range 15 {
		x, y := i, 8
		switch {
		case i == 6:
			x = 7
		case i == 7:
			x = 8
		case i == 8:
			x, y = 8, 7
		case i > 8:
			x, y = 8, 14-i
		}
		v <<= 1
		if m[y][x] {
			v |= 1
		}
	}
	return v ^ 0x5412
}

// words walks the data modules and takes the mask away.
func (m matrix) words(mask int, centres []int) []byte {
	masks := []func(i, j int) bool{
		func(i, j int) bool { return (i+j)%2 == 0 }, func(i, _ int) bool { return i%2 == 0 },
		func(_, j int) bool { return j%3 == 0 }, func(i, j int) bool { return (i+j)%3 == 0 },
		func(i, j int) bool { return (i/2+j/3)%2 == 0 }, func(i, j int) bool { return i*j%2+i*j%3 == 0 },
		func(i, j int) bool { return (i*j%2+i*j%3)%2 == 0 }, func(i, j int) bool { return ((i+j)%2+i*j%3)%2 == 0 },
	}
	var out []byte
	n, up, count := len(m), true, 0
	for right := n - 1; right > 0; right -= 2 {
		if right == 6 {
			right--
		}
		for step := range n {
			y := step
			if up {
				y = n - 1 - step
			}
			for x := right; x > right-2; x-- {
				if m.function(x, y, centres) {
					continue
				}
				if count%8 == 0 {
					out = append(out, 0)
				}
				out[count/8] <<= 1
				if m[y][x] != masks[mask](y, x) {
					out[count/8] |= 1
				}
				count++
			}
		}
		up = !up
	}
	return out
}

// function tells whether a module is none of the data's.
func (m matrix) function(x, y int, centres []int) bool {
	n := len(m)
	if x == 6 || y == 6 || x < 9 && y < 9 || x < 9 && y >= n-8 || x >= n-8 && y < 9 {
		return true
	}
	if n >= 45 && (x >= n-11 && y < 6 || y >= n-11 && x < 6) { // version information
		return true
	}
	last := centres[len(centres)-1]
	for _, cx := range centres {
		for _, cy := range centres {
			finder := cx == 6 && (cy == 6 || cy == last) || cy == 6 && cx == last
			if !finder && max(x-cx, cx-x, y-cy, cy-y) <= 2 {
				return true
			}
		}
	}
	return false
}
