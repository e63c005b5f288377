// A Terraform provider that knows its schema and nothing else: enough for `validate`, and for `test` with mock_provider.
//
// The schema lies beside the program as schema.json, in the format of `terraform providers schema -json`, where an
// attribute may also name the "values" it takes. Whoever asks for more than a check of the configuration is refused.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

const refusal = "this provider holds only the schema of the real one: it checks configurations and serves mock_provider; " +
	"to plan or apply, let terraform init download the real one"

// provider answers what a mocked provider is asked; the embedded interface stands for the calls that need a cloud.
type provider struct {
	tfprotov6.ProviderServer
	wire   *tfprotov6.GetProviderSchemaResponse
	stored document
}

func main() {
	stored, err := read(filepath.Join(filepath.Dir(os.Args[0]), "schema.json"))
	if err != nil {
		log.Fatal(err)
	}
	serve := func() tfprotov6.ProviderServer { return &provider{wire: stored.wire(), stored: stored} }
	if err := tf6server.Serve(stored.Address, serve); err != nil {
		log.Fatal(err)
	}
}

func read(path string) (stored document, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return stored, err
	}
	if err := json.Unmarshal(text, &stored); err != nil {
		return stored, fmt.Errorf("%s is no provider schema: %w", path, err)
	}
	return stored, nil
}

func (p *provider) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	answer := &tfprotov6.GetMetadataResponse{ServerCapabilities: p.wire.ServerCapabilities}
	for name := range p.stored.Resources {
		answer.Resources = append(answer.Resources, tfprotov6.ResourceMetadata{TypeName: name})
	}
	for name := range p.stored.Data {
		answer.DataSources = append(answer.DataSources, tfprotov6.DataSourceMetadata{TypeName: name})
	}
	return answer, nil
}

func (p *provider) GetProviderSchema(
	context.Context, *tfprotov6.GetProviderSchemaRequest,
) (*tfprotov6.GetProviderSchemaResponse, error) {
	return p.wire, nil
}

func (p *provider) GetResourceIdentitySchemas(
	context.Context, *tfprotov6.GetResourceIdentitySchemasRequest,
) (*tfprotov6.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov6.GetResourceIdentitySchemasResponse{}, nil
}

func (p *provider) GetFunctions(
	context.Context, *tfprotov6.GetFunctionsRequest,
) (*tfprotov6.GetFunctionsResponse, error) {
	return &tfprotov6.GetFunctionsResponse{}, nil
}

func (p *provider) ValidateProviderConfig(
	_ context.Context, asked *tfprotov6.ValidateProviderConfigRequest,
) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: asked.Config}, nil
}

func (p *provider) ValidateResourceConfig(
	_ context.Context, asked *tfprotov6.ValidateResourceConfigRequest,
) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{
		Diagnostics: p.complaints(p.stored.Resources, asked.TypeName, asked.Config),
	}, nil
}

func (p *provider) ValidateDataResourceConfig(
	_ context.Context, asked *tfprotov6.ValidateDataResourceConfigRequest,
) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{
		Diagnostics: p.complaints(p.stored.Data, asked.TypeName, asked.Config),
	}, nil
}

func (p *provider) ConfigureProvider(
	context.Context, *tfprotov6.ConfigureProviderRequest,
) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{Diagnostics: []*tfprotov6.Diagnostic{problem("No cloud here", refusal)}}, nil
}

func (p *provider) StopProvider(
	context.Context, *tfprotov6.StopProviderRequest,
) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

func problem(summary, detail string) *tfprotov6.Diagnostic {
	return &tfprotov6.Diagnostic{Severity: tfprotov6.DiagnosticSeverityError, Summary: summary, Detail: detail}
}

// complaints are about attributes that are not to be set, or not to this value.
func (p *provider) complaints(
	schemas map[string]schema, name string, config *tfprotov6.DynamicValue,
) (found []*tfprotov6.Diagnostic) {
	known, exists := schemas[name]
	if !exists {
		return []*tfprotov6.Diagnostic{problem("Unknown type", name+" is not in the schema")}
	}
	value, err := config.Unmarshal(known.wire().ValueType())
	if err != nil {
		return []*tfprotov6.Diagnostic{problem("Unreadable configuration", err.Error())}
	}
	leaves := map[string]attribute{}
	known.Block.leaves("", leaves)
	err = tftypes.Walk(value, func(path *tftypes.AttributePath, value tftypes.Value) (bool, error) {
		leaf, exists := leaves[steps(path)]
		if !exists || value.IsNull() || !value.IsFullyKnown() {
			return true, nil
		}
		if said := leaf.refusal(value); said != "" {
			complaint := problem("Invalid value", said)
			complaint.Attribute = path
			found = append(found, complaint)
		}
		return true, nil
	})
	if err != nil {
		found = append(found, problem("Unreadable configuration", err.Error()))
	}
	return found
}

// steps is the path as names alone: elements of lists and sets leave no trace.
func steps(path *tftypes.AttributePath) string {
	names := ""
	for _, step := range path.Steps() {
		if name, ok := step.(tftypes.AttributeName); ok {
			names += "." + string(name)
		}
	}
	return names
}
