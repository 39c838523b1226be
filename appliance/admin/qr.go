package admin

import (
	"fmt"
	"mime"
	"net/http"
	"strings"

	"rsc.io/qr"

	"chancery/appliance/store"
)

// maxLink bounds what is put into a QR code: a link by reference is short, and
// phones read small codes better.
const maxLink = 1200

// qrCode renders a link, error correction level M.
func qrCode(link, kind string) (image []byte, mediaType string, err error) {
	code, err := qr.Encode(link, qr.M)
	if err != nil {
		return nil, "", fmt.Errorf("the link has no QR code: %w", err)
	}
	if kind == "png" {
		code.Scale = 8
		return code.PNG(), "image/png", nil
	}
	return svg(code), "image/svg+xml", nil
}

// svg draws one path of unit squares with the quiet zone of four modules that
// ISO/IEC 18004 wants.
func svg(code *qr.Code) []byte {
	const quiet = 4
	side := code.Size + 2*quiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges" role="img" aria-label="QR code of the credential offer"><path fill="#fff" d="M0 0h%dv%dH0z"/><path d="`, side, side, side, side)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for x+run < code.Size && code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+quiet, y+quiet, run, run)
				x += run
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return []byte(b.String())
}

// renderQR draws the link of an offer, which the API does not keep: who made
// the offer has it. Accept chooses between image/svg+xml (default) and image/png.
func (a *api) renderQR(r *http.Request, _ store.Operator) (result, error) {
	var request struct {
		URI string `json:"uri"`
	}
	if _, err := decode(r, &request); err != nil {
		return result{}, err
	}
	known := strings.HasPrefix(request.URI, "openid-credential-offer://") || strings.HasPrefix(request.URI, "haip-vci://") || strings.HasPrefix(request.URI, "https://")
	if !known || len(request.URI) > maxLink {
		return result{}, invalid(Detail{Msg: fmt.Sprintf("must be an offer's link of at most %d bytes", maxLink), Param: "uri", Location: "body"})
	}
	kind := "svg"
	for accepted := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		if t, _, err := mime.ParseMediaType(accepted); err == nil && t == "image/png" {
			kind = "png"
		} else if err == nil && t == "image/svg+xml" {
			break
		}
	}
	image, mediaType, err := qrCode(request.URI, kind)
	if err != nil {
		return result{}, err
	}
	return result{status: http.StatusOK, raw: image, mediaType: mediaType}, nil
}
