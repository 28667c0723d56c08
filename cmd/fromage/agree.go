// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"fromage/bundle"
	"fromage/runner"
	"fromage/verify"
)

func (a *app) agreeCommand() *cobra.Command {
	length := 256
	c := &cobra.Command{
		Use:   "agree A.bundle B.bundle TEXTFILE…",
		Short: "how often two bundles of one model choose the same next token of a text: what a smaller dtype costs",
		Long:  "Runs both bundles over the texts and counts how often the most likely next token is the same. With --kv f16 the second keeps keys and values in f16.",
		Args:  takes(3, many),
		RunE: func(cmd *cobra.Command, args []string) error {
			if length < 2 {
				return fmt.Errorf("--length: want 2 or more, have %d", length)
			}
			dev, err := a.openDevice()
			if err != nil {
				return err
			}
			var models [2]*runner.Runner
			for i, path := range args[:2] {
				b, err := bundle.Open(path)
				if err != nil {
					return err
				}
				defer b.Close()
				if models[i], err = runner.Load(cmd.Context(), dev, b, nil); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				defer models[i].Close()
			}
			if err := models[1].SetKV(a.kv); err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			for _, path := range args[2:] {
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				agreement, err := verify.Agree(cmd.Context(), models[0], models[1], string(text), length)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				if err := a.printAgreement(path, agreement); err != nil {
					return err
				}
			}
			return nil
		},
	}
	a.kvFlag(c.Flags())
	c.Flags().IntVar(&length, "length", length, "tokens of a window; each begins anew")
	return c
}

func (a *app) printAgreement(path string, g *verify.Agreement) error {
	if a.json {
		return a.writeJSON(struct {
			File string `json:"file"`
			*verify.Agreement
		}{path, g})
	}
	_, err := fmt.Fprintf(a.stdout, "%s: same token at %d of %d positions (%.2f %%), cross-entropy %.4f and %.4f\n", path, g.Same, g.Positions, 100*g.Share, g.LossA, g.LossB)
	return err
}
