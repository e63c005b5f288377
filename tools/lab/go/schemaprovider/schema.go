package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// document is one provider of `terraform providers schema -json`, with its address.
type document struct {
	Address   string            `json:"address"`
	Provider  schema            `json:"provider"`
	Resources map[string]schema `json:"resource_schemas"`
	Data      map[string]schema `json:"data_source_schemas"`
}

type schema struct {
	Version int64 `json:"version"`
	Block   block `json:"block"`
}

type block struct {
	Attributes map[string]attribute   `json:"attributes"`
	Blocks     map[string]nestedBlock `json:"block_types"`
}

type attribute struct {
	Type     json.RawMessage `json:"type"`
	Nested   *nestedType     `json:"nested_type"`
	Required bool            `json:"required"`
	Optional bool            `json:"optional"`
	Computed bool            `json:"computed"`
	Values   []string        `json:"values"` // ours: what a string may be
}

type nestedType struct {
	Nesting    string               `json:"nesting_mode"`
	Attributes map[string]attribute `json:"attributes"`
}

type nestedBlock struct {
	Nesting  string `json:"nesting_mode"`
	Block    block  `json:"block"`
	MinItems int64  `json:"min_items"`
	MaxItems int64  `json:"max_items"`
}

var blockNesting = map[string]tfprotov6.SchemaNestedBlockNestingMode{
	"single": tfprotov6.SchemaNestedBlockNestingModeSingle,
	"list":   tfprotov6.SchemaNestedBlockNestingModeList,
	"set":    tfprotov6.SchemaNestedBlockNestingModeSet,
	"map":    tfprotov6.SchemaNestedBlockNestingModeMap,
}

var objectNesting = map[string]tfprotov6.SchemaObjectNestingMode{
	"single": tfprotov6.SchemaObjectNestingModeSingle,
	"list":   tfprotov6.SchemaObjectNestingModeList,
	"set":    tfprotov6.SchemaObjectNestingModeSet,
	"map":    tfprotov6.SchemaObjectNestingModeMap,
}

func (d document) wire() *tfprotov6.GetProviderSchemaResponse {
	answer := &tfprotov6.GetProviderSchemaResponse{
		ServerCapabilities: &tfprotov6.ServerCapabilities{GetProviderSchemaOptional: true},
		Provider:           d.Provider.wire(),
		ResourceSchemas:    map[string]*tfprotov6.Schema{},
		DataSourceSchemas:  map[string]*tfprotov6.Schema{},
	}
	for name, one := range d.Resources {
		answer.ResourceSchemas[name] = one.wire()
	}
	for name, one := range d.Data {
		answer.DataSourceSchemas[name] = one.wire()
	}
	return answer
}

func (s schema) wire() *tfprotov6.Schema {
	return &tfprotov6.Schema{Version: s.Version, Block: s.Block.wire()}
}

func (b block) wire() *tfprotov6.SchemaBlock {
	wire := &tfprotov6.SchemaBlock{Attributes: attributes(b.Attributes)}
	for name, nested := range b.Blocks {
		wire.BlockTypes = append(wire.BlockTypes, &tfprotov6.SchemaNestedBlock{
			TypeName: name,
			Block:    nested.Block.wire(),
			Nesting:  blockNesting[nested.Nesting],
			MinItems: nested.MinItems,
			MaxItems: nested.MaxItems,
		})
	}
	return wire
}

func attributes(named map[string]attribute) (wire []*tfprotov6.SchemaAttribute) {
	for name, one := range named {
		wire = append(wire, one.wire(name))
	}
	return wire
}

func (a attribute) wire(name string) *tfprotov6.SchemaAttribute {
	wire := &tfprotov6.SchemaAttribute{Name: name, Required: a.Required, Optional: a.Optional, Computed: a.Computed}
	if a.Nested != nil {
		wire.NestedType = &tfprotov6.SchemaObject{
			Attributes: attributes(a.Nested.Attributes),
			Nesting:    objectNesting[a.Nested.Nesting],
		}
		return wire
	}
	kind, err := tftypes.ParseJSONType(a.Type) //nolint:staticcheck // the only reader of this format
	if err != nil {
		panic(name + ": " + err.Error())
	}
	wire.Type = kind
	return wire
}

// leaves collects the attributes by their path.
func (b block) leaves(path string, found map[string]attribute) {
	for name, one := range b.Attributes {
		found[path+"."+name] = one
	}
	for name, nested := range b.Blocks {
		nested.Block.leaves(path+"."+name, found)
	}
}

// refusal says what is wrong with a value that is known and not null; nothing if it may stand.
func (a attribute) refusal(value tftypes.Value) string {
	if a.Computed && !a.Optional {
		return "the provider decides about it"
	}
	var text string
	if len(a.Values) == 0 || value.As(&text) != nil || slices.Contains(a.Values, text) {
		return ""
	}
	return fmt.Sprintf("%q is none of %s", text, strings.Join(a.Values, ", "))
}
