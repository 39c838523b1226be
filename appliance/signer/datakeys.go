package signer

import (
	"context"
	"crypto/rand"
	"errors"

	"chancery/appliance/signer/wire"
	"chancery/hsm"
)

const (
	dataKeySize = 32 // bytes, AES-256
	// longestContext bounds what a data key is bound to, in bytes.
	longestContext = 1024
	// contextPrefix keeps data keys apart from whatever else the sealing key seals.
	contextPrefix = "chancery data key v1\x00"
)

// newDataKey makes a data key and wraps it in the token.
func (s *Server) newDataKey(ctx context.Context, c *core, in wire.NewDataKeyRequest) (wire.DataKeyResponse, error) {
	key := make([]byte, dataKeySize)
	rand.Read(key)
	var wrapped []byte
	err := s.sealing(ctx, c, in.Context, func(ctx context.Context, token *hsm.Token, aad []byte) (err error) {
		wrapped, err = token.Seal(ctx, c.sealing, key, aad)
		return err
	})
	if err != nil {
		return wire.DataKeyResponse{}, err
	}
	return wire.DataKeyResponse{Key: key, Wrapped: wrapped}, nil
}

// openDataKey unwraps a data key; the context must be the one it was made with.
func (s *Server) openDataKey(ctx context.Context, c *core, in wire.OpenDataKeyRequest) (wire.DataKeyResponse, error) {
	var key []byte
	err := s.sealing(ctx, c, in.Context, func(ctx context.Context, token *hsm.Token, aad []byte) (err error) {
		key, err = token.Unseal(ctx, c.sealing, in.Wrapped, aad)
		return err
	})
	if hsm.ClassOf(err) == hsm.ClassRefused {
		return wire.DataKeyResponse{}, &wire.Error{Code: wire.CodeRefused, Message: "the data key was not wrapped by this token with this context"}
	}
	if err != nil {
		return wire.DataKeyResponse{}, err
	}
	if len(key) != dataKeySize {
		return wire.DataKeyResponse{}, errors.New("what was wrapped is no data key")
	}
	return wire.DataKeyResponse{Key: key, Wrapped: in.Wrapped}, nil
}

// sealing admits and bounds an operation with the sealing key.
func (s *Server) sealing(ctx context.Context, c *core, binding string, fn func(context.Context, *hsm.Token, []byte) error) error {
	if binding == "" || len(binding) > longestContext {
		return bad("the context must have 1 to %d bytes", longestContext)
	}
	if !s.admit() {
		return &wire.Error{Code: wire.CodeBusy, RetryAfter: 1, Message: "the queue for the token is full"}
	}
	defer s.admitted.Add(-1)
	token, err := c.ready()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Signer.OperationTimeout.Std())
	defer cancel()
	return fn(ctx, token, []byte(contextPrefix+binding))
}
