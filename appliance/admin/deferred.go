package admin

import (
	"errors"
	"fmt"
	"net/http"

	"chancery/appliance/store"
)

// deferredBody is a credential that an operator decides, without claims: who
// decides knows the person by the offer's id.
type deferredBody struct {
	ID            string `json:"id"`
	OfferID       string `json:"offerId"`
	Configuration string `json:"configuration"`
	State         string `json:"state"`
	RequestedAt   string `json:"requestedAt"`
	DecidedAt     string `json:"decidedAt,omitempty"`
	DecidedBy     string `json:"decidedBy,omitempty"`
	Reason        string `json:"reason,omitempty"`
}

func describeDeferred(d store.DeferredRequest) deferredBody {
	return deferredBody{d.ID, d.Offer, d.Configuration, d.State.String(), stamp(d.RequestedAt), stamp(d.DecidedAt), d.DecidedBy, d.Reason}
}

func (a *api) listDeferred(r *http.Request, _ store.Operator) (result, error) {
	limit, cursor, err := page(r)
	if err != nil {
		return result{}, err
	}
	var state *store.DeferredState
	if name := r.URL.Query().Get("state"); name != "" {
		s, known := store.ParseDeferredState(name)
		if !known {
			return result{}, invalid(Detail{Msg: "must be pending, approved, refused, issued or ended", Param: "state", Location: "query"})
		}
		state = &s
	}
	list, next, err := a.Store.ListDeferred(r.Context(), state, limit, cursor)
	if err != nil {
		return result{}, badCursor(err, cursor)
	}
	data := make([]deferredBody, len(list))
	for i, d := range list {
		data[i] = describeDeferred(d)
	}
	return result{status: http.StatusOK, body: listBody{data, next}}, nil
}

func (a *api) readDeferred(r *http.Request, _ store.Operator) (result, error) {
	d, err := a.Store.Deferred(r.Context(), r.PathValue("id"))
	if err != nil {
		return result{}, err
	}
	return result{status: http.StatusOK, body: describeDeferred(d)}, nil
}

func (a *api) approveDeferred(r *http.Request, operator store.Operator) (result, error) {
	if err := decodeOptional(r, &struct{}{}); err != nil {
		return result{}, err
	}
	return a.decide(r, true, "", operator)
}

// refuseRequest is the body of POST /v1/openid/deferred/{id}/refuse.
type refuseRequest struct {
	Reason string `json:"reason"`
}

// check says what is wrong with the reason.
func (b refuseRequest) check() error {
	if err := store.CheckReason(b.Reason); err != nil {
		return invalid(Detail{Msg: fmt.Sprintf("must be one line of at most %d printable characters", store.MaxReason), Param: "reason", Location: "body"})
	}
	return nil
}

func (a *api) refuseDeferred(r *http.Request, operator store.Operator) (result, error) {
	var body refuseRequest
	err := decodeOptional(r, &body)
	if err == nil {
		err = body.check()
	}
	if err != nil {
		return result{}, err
	}
	return a.decide(r, false, body.Reason, operator)
}

// decide answers with the decided request.
func (a *api) decide(r *http.Request, approve bool, reason string, operator store.Operator) (result, error) {
	err := a.Store.DecideDeferred(r.Context(), r.PathValue("id"), approve, reason, operator.Name)
	if errors.Is(err, store.ErrState) {
		err = &Error{Status: http.StatusConflict, Code: "Conflict", Message: "This was decided already, or its offer has ended: read it to see which."}
	}
	if err != nil {
		return result{}, err
	}
	return a.readDeferred(r, operator)
}
