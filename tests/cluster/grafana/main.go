// Reads dashboards as Grafana's own library does, strictly: a field that no panel, query or dashboard knows, a
// value of another type, or a required field that is missing, is one line on standard output and exit code 1.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	code := 0
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err == nil {
			err = check(text)
		}
		// The library says that nothing is wrong by an error without words, too.
		if err != nil && err.Error() != "" {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

func check(text []byte) error {
	var board dashboard.Dashboard
	if err := board.UnmarshalJSONStrict(text); err != nil {
		return err
	}
	return board.Validate()
}
