package runbooks

import (
	_ "embed"
	"encoding/json"
	"slices"
)

//go:embed schema.json
var schema []byte

// Schema is the JSON Schema (2020-12) of "project" (deployer.yaml), "runbook",
// or, with an empty name, of both: an editor tells them apart by `phases`. It
// is nil for other names.
func Schema(name string) []byte {
	if name == "" {
		return slices.Clone(schema)
	}
	var whole struct {
		Schema string         `json:"$schema"`
		Ref    string         `json:"$ref"`
		Defs   map[string]any `json:"$defs"`
	}
	if err := json.Unmarshal(schema, &whole); err != nil || name != "project" && name != "runbook" {
		return nil
	}
	whole.Ref = "#/$defs/" + name
	one, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		return nil
	}
	return append(one, '\n')
}
