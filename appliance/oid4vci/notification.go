package oid4vci

import (
	"errors"
	"net/http"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance/jws"
)

// maxNotification bounds a notification's body in bytes.
const maxNotification = 16 << 10

// serveNotification is the notification endpoint (OpenID4VCI 1.0 §11). Its
// event_description is the wallet's free text, which may hold anything: it is
// neither kept nor logged.
func (i *Issuer) serveNotification(c *call) string {
	grant, body, err := i.protected(c, "/notification", maxNotification, "invalid_notification_request", i.store.NotificationGrant)
	if err != nil {
		return i.failed(c, err)
	}
	defer grant.Release()
	if err := i.notify(c, grant, body); err != nil {
		return i.failed(c, err)
	}
	c.w.Header().Set("Cache-Control", "no-store")
	c.w.WriteHeader(http.StatusNoContent)
	return "ok"
}

func badNotification(member, description string) *refusal.Refusal {
	return refusal.New("invalid_notification_request", member, description, "OpenID4VCI 1.0 §11.1")
}

func (i *Issuer) notify(c *call, grant *store.Grant, body []byte) error {
	if mediaType(c.r) != "application/json" {
		return badNotification("Content-Type", "the body must be application/json")
	}
	object, err := jws.Object(body)
	if err != nil {
		return badNotification("body", "the body: "+err.Error())
	}
	id, ok := object["notification_id"].(string)
	if !ok || id == "" {
		return badNotification("notification_id", "notification_id is missing or not a string")
	}
	event, _ := object["event"].(string)
	if event != store.CredentialAccepted && event != store.CredentialFailure && event != store.CredentialDeleted { // in this case
		return badNotification("event", "event must be credential_accepted, credential_failure or credential_deleted")
	}
	if value, has := object["event_description"]; has {
		if _, ok := value.(string); !ok {
			return badNotification("event_description", "event_description must be a string")
		}
	}
	err = i.store.Notify(c.r.Context(), grant, id, event)
	if errors.Is(err, store.ErrNotFound) {
		return refusal.New("invalid_notification_id", "notification_id", "no such notification_id belongs to this access token", "OpenID4VCI 1.0 §11.3")
	}
	return err
}
