package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"

	"chancery/issuance/jws"
)

// decode reads a JSON body strictly into a struct: its media type, no duplicate
// and no unknown members, each of its type, nothing after it. It lists every
// fault at once and never shows a value. The members are returned, too.
func decode(r *http.Request, into any) (map[string]any, error) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return nil, &Error{Status: http.StatusUnsupportedMediaType, Code: "UnsupportedMediaType", Message: "Send the body as application/json."}
	}
	data, err := io.ReadAll(r.Body)
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, err
	case err != nil:
		return nil, invalid(Detail{Msg: "could not be read to its end: send it again", Param: "body", Location: "body"})
	}
	return decodeBytes(data, into)
}

// decodeOptional is decode for a request that may have no body.
func decodeOptional(r *http.Request, into any) error {
	if r.ContentLength == 0 {
		return nil
	}
	_, err := decode(r, into)
	return err
}

func decodeBytes(data []byte, into any) (map[string]any, error) {
	unreadable := func(err error) error {
		return invalid(Detail{Msg: "must be one JSON object without duplicate members: " + err.Error(), Param: "body", Location: "body"})
	}
	object, err := jws.Object(data)
	if err != nil {
		return nil, unreadable(err) // which shows nothing of what was read
	}
	// The library stops at the first fault.
	if details := misfits(object, reflect.TypeOf(into).Elem(), ""); len(details) > 0 {
		return nil, invalid(details...)
	}
	if err := jsonv2.Unmarshal(data, into); err != nil {
		return nil, unreadable(errors.New("a member is not what it should be"))
	}
	return object, nil
}

// misfits holds a decoded value against the type that it is to become: structs
// of strings, truth values, whole numbers, lists and structs. What is json.RawMessage may be
// anything.
func misfits(value any, t reflect.Type, at string) []Detail {
	fault := func(msg string) []Detail { return []Detail{{Msg: msg, Param: at, Location: "body"}} }
	if t == reflect.TypeFor[json.RawMessage]() {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		if value == nil {
			return nil
		}
		return misfits(value, t.Elem(), at)
	case reflect.String:
		if _, ok := value.(string); !ok {
			return fault("must be a string")
		}
	case reflect.Bool:
		if _, ok := value.(bool); !ok {
			return fault("must be true or false")
		}
	case reflect.Int:
		number, _ := value.(json.Number)
		if _, err := strconv.Atoi(string(number)); err != nil {
			return fault("must be a whole number")
		}
	case reflect.Slice:
		list, ok := value.([]any)
		if !ok {
			return fault("must be a list")
		}
		var details []Detail
		for i, element := range list {
			details = append(details, misfits(element, t.Elem(), fmt.Sprintf("%s[%d]", at, i))...)
		}
		return details
	case reflect.Struct:
		object, ok := value.(map[string]any)
		if !ok {
			return fault("must be an object")
		}
		return strangers(object, t, at)
	}
	return nil
}

// strangers holds an object's members against a struct's.
func strangers(object map[string]any, t reflect.Type, at string) []Detail {
	members := map[string]reflect.Type{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		members[name] = t.Field(i).Type
	}
	var details []Detail
	for _, name := range slices.Sorted(maps.Keys(object)) {
		path := strings.TrimPrefix(at+"."+name, ".")
		member, known := members[name]
		if !known {
			details = append(details, Detail{Msg: "is not a member of this request: remove it or correct its spelling", Param: clip(path), Location: "body"})
			continue
		}
		details = append(details, misfits(object[name], member, path)...)
	}
	return details
}

// clip bounds a foreign member's name in an answer.
func clip(name string) string {
	const most = 100
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}
