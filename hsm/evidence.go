package hsm

import (
	"fmt"
	"maps"
	"slices"
)

// Evidence is what an auditor wants to know of a token.
type Evidence struct {
	Module       string   `json:"module"`
	Library      string   `json:"library"`
	Manufacturer string   `json:"manufacturer"`
	Model        string   `json:"model"`
	Label        string   `json:"label"`
	Serial       string   `json:"serial"`
	Hardware     string   `json:"hardware_version"`
	Firmware     string   `json:"firmware_version"`
	Mechanisms   []string `json:"mechanisms"`
	// Keys holds each loaded key's attributes as read back, by label.
	Keys map[string]Attributes `json:"keys"`
}

// Evidence reads the token's description and the proven attributes of its keys.
func (t *Token) Evidence() (Evidence, error) {
	t.life.RLock()
	defer t.life.RUnlock()
	gen := t.gen
	if gen == nil {
		return Evidence{}, t.unavailable("evidence", "")
	}
	e := Evidence{
		Module: t.cfg.Module, Library: trim(gen.library.LibraryDescription) + fmt.Sprintf(" %d.%d", gen.library.LibraryVersion.Major, gen.library.LibraryVersion.Minor),
		Manufacturer: trim(gen.info.ManufacturerID), Model: trim(gen.info.Model), Label: trim(gen.info.Label), Serial: trim(gen.info.SerialNumber),
		Hardware: fmt.Sprintf("%d.%d", gen.info.HardwareVersion.Major, gen.info.HardwareVersion.Minor),
		Firmware: fmt.Sprintf("%d.%d", gen.info.FirmwareVersion.Major, gen.info.FirmwareVersion.Minor),
		Keys:     map[string]Attributes{},
	}
	for _, m := range slices.Sorted(maps.Keys(gen.mechs)) {
		e.Mechanisms = append(e.Mechanisms, fmt.Sprintf("%#x", m))
	}
	for label, k := range gen.keys {
		e.Keys[label] = k.attributes
	}
	return e, nil
}
