// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"fromage/shaders"
	"fromage/verify"
)

func (a *app) verifyCommand() *cobra.Command {
	dtype := "f32"
	c := &cobra.Command{
		Use:   "verify DIR…",
		Short: "run folders of reference activations and compare; exits with 1 beyond tolerance",
		Long: "Compiles the checkpoint in each folder, runs it on the device and compares every tensor, token and text with what the public PyTorch code\n" +
			"printed (layouts: testdata/golden/README.md). With --dtype other than f32 differences are reported and do not fail.",
		Args: takes(1, many),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			format, err := shaders.ParseFormat(dtype)
			if err != nil {
				return err
			}
			dev, err := a.openDevice()
			if err != nil {
				return err
			}
			failed := 0
			for _, dir := range dirs {
				report, err := verify.Run(cmd.Context(), dev, dir, format)
				if err != nil {
					return err
				}
				if err := a.printReport(report); err != nil {
					return err
				}
				if !report.OK() {
					failed++
				}
			}
			if failed > 0 && format == shaders.F32 {
				return no{fmt.Errorf("verify: %d of %d folders are beyond tolerance on %s", failed, len(dirs), dev.Info().Adapter)}
			}
			return nil
		},
	}
	c.Flags().StringVar(&dtype, "dtype", dtype, "weights in f32, f16, q8 or q4; all but f32 report only")
	return c
}

func (a *app) printReport(r *verify.Report) error {
	if a.json {
		return a.writeJSON(r)
	}
	fmt.Fprintf(a.stdout, "%s (%s, %s)\n", r.Dir, r.Layout, r.DType)
	for _, c := range r.Checks {
		result := "ok"
		switch {
		case !c.OK():
			result = "BEYOND TOLERANCE " + c.Mismatch
		case c.Close != "":
			result = "ok, close call: " + c.Close
		}
		numbers := strings.Repeat(" ", 31)
		if c.Tolerance > 0 {
			numbers = fmt.Sprintf("max |Δ| %.2e of %.2e", c.MaxError, c.Tolerance)
		}
		fmt.Fprintf(a.stdout, "  %-42s %8d values  %-31s %s\n", c.Name, c.Values, numbers, result)
	}
	return nil
}
