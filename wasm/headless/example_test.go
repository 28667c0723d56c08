// SPDX-License-Identifier: Apache-2.0

package headless_test

import (
	"context"
	"fmt"
	"log"

	"fromage/assets"
	"fromage/gpu/cpu"
	"fromage/wasm/headless"
	"fromage/wasm/headless/lines"
)

// A program answers a prompt in a sandbox, on the CPU, with the embedded model and gallery.
func Example() {
	ctx := context.Background()
	r := headless.NewRuntime(ctx)
	m, err := headless.Instantiate(ctx, r, cpu.New(), headless.Config{Files: assets.Files(), Model: assets.BundleFile, Index: assets.IndexFile})
	if err != nil {
		log.Fatal(err)
	}
	guest, err := m.Guest(ctx)
	if err != nil {
		log.Fatal(err)
	}
	err = guest.Ask(ctx, lines.Request{Prompt: []lines.Item{{Text: "an emoji of violin[RET]"}}}, func(l lines.Line) {
		if l.Pictures != nil {
			fmt.Println((*l.Pictures)[0].Caption)
		}
	})
	fmt.Println(err)
}
