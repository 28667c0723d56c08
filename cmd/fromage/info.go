// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fromage/bundle"
	"fromage/index"
)

func (a *app) infoCommand() *cobra.Command {
	var verify, programs bool
	c := &cobra.Command{
		Use:   "info [FILE]",
		Short: "say what is in a bundle or an index",
		Long:  "Say what is in a bundle (default: the embedded one) or an index. The file's kind is read from its first bytes.",
		Args:  takes(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.model = args[0]
				if isIndex, err := beginsAs(args[0], "fromagei"); err != nil {
					return err
				} else if isIndex {
					return a.indexInfo(args[0])
				}
			}
			b, err := a.openBundle()
			if err != nil {
				return err
			}
			if verify {
				if err := a.verifyBytes(c.Context(), b); err != nil {
					return err
				}
			}
			return a.bundleInfo(b, programs)
		},
	}
	c.Flags().BoolVar(&verify, "verify", false, "read the whole file and check every byte")
	c.Flags().BoolVar(&programs, "programs", false, "list the programs' operations")
	return c
}

// beginsAs says whether a file begins with magic.
func beginsAs(name, magic string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	_, err = io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return string(head) == magic, nil
}

// verifyBytes checks every byte of the bundle. A byte that is wrong is an answer, not bad usage.
func (a *app) verifyBytes(ctx context.Context, b *bundle.Bundle) error {
	line := a.startProgress("checking "+a.modelName(), "B")
	err := b.Verify(ctx, line.set)
	a.endProgress()
	switch {
	case err != nil && ctx.Err() == nil:
		return no{err}
	case err == nil && !a.json:
		_, err = fmt.Fprintln(a.stdout, "every byte is as its hash says")
	}
	return err
}

func (a *app) bundleInfo(b *bundle.Bundle, programs bool) error {
	m := b.Manifest()
	if a.json {
		return a.writeJSON(m)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "bundle\t%s\nname\t%s\ndtype\t%s\n", a.modelName(), m.Name, m.DType)
	if err := writeSettings(w, m.Settings); err != nil {
		return err
	}
	for _, name := range sortedKeys(m.Sources) {
		fmt.Fprintf(w, "from\t%s  %s\n", m.Sources[name], name)
	}
	for _, name := range sortedKeys(m.Notes) {
		fmt.Fprintf(w, "%s\t%s\n", name, m.Notes[name])
	}
	for _, name := range sortedKeys(m.Files) {
		fmt.Fprintf(w, "file\t%s  %s  %s\n", m.Files[name].SHA256, byteSize(m.Files[name].Size), name)
	}
	w.Flush()
	fmt.Fprintln(a.stdout)
	writeTensors(a.stdout, m)
	for _, p := range m.Model.Programs {
		if !programs {
			fmt.Fprintf(a.stdout, "program %s: %d operations\n", p.Name, len(p.Ops))
			continue
		}
		fmt.Fprintln(a.stdout)
		if err := p.WriteText(a.stdout); err != nil {
			return err
		}
	}
	return nil
}

// writeSettings lists settings by their names in the manifest, in its order.
func writeSettings(w io.Writer, s bundle.Settings) error {
	type setting struct {
		name  string
		value any
	}
	all := []setting{
		{"vocabulary", s.Vocabulary}, {"embed_dim", s.EmbedDim}, {"hidden_dim", s.HiddenDim}, {"layers", s.Layers}, {"max_positions", s.MaxPositions},
		{"vision_dim", s.VisionDim}, {"image_size", s.ImageSize}, {"image_tokens", s.ImageTokens}, {"visual_tokens", s.VisualTokens},
		{"shared_dim", s.SharedDim}, {"ret", s.RET}, {"image_token", s.ImageToken}, {"bos", s.BOS}, {"eos", s.EOS}, {"pad", s.Pad}, {"heads_hash", s.HeadsHash},
	}
	if t := s.Text; t.Dim > 0 {
		all = append(all, setting{"text.vocabulary", t.Vocabulary}, setting{"text.positions", t.Positions}, setting{"text.dim", t.Dim},
			setting{"text.bos", t.BOS}, setting{"text.eos", t.EOS}, setting{"text.pool", t.Pool})
	}
	for _, f := range all {
		if _, err := fmt.Fprintf(w, "%s\t%v\n", f.name, f.value); err != nil {
			return err
		}
	}
	return nil
}

// writeTensors lists the weights: shape, format, bytes with scales, shards, and the beginning of the first shard's hash.
func writeTensors(out io.Writer, m *bundle.Manifest) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "tensor\tshape\tdtype\tbytes\tshards\tsha256")
	var total int64
	for i, t := range m.Tensors {
		var size int64
		for _, s := range t.Shards {
			size += s.Values.Size
			if s.Scales != nil {
				size += s.Scales.Size
			}
		}
		total += size
		spec := m.Model.Weights[i]
		fmt.Fprintf(w, "%s\t%d × %d\t%s\t%d\t%d\t%.12s\n", t.Name, spec.Rows, spec.Cols, t.Format, size, len(t.Shards), t.Shards[0].Values.SHA256)
	}
	w.Flush()
	fmt.Fprintf(out, "%d tensors, %s\n", len(m.Tensors), byteSize(total))
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// indexInfo says what an index holds.
func (a *app) indexInfo(name string) error {
	x, err := index.Open(name)
	if err != nil {
		return err
	}
	defer x.Close()
	h := x.Header()
	out := struct {
		Name    string `json:"name"`
		Rows    int    `json:"rows"`
		Removed int    `json:"removed"`
		D       int    `json:"d"`
		DType   string `json:"dtype"`
		Model   string `json:"model"`
		Notice  string `json:"notice,omitempty"`
	}{name, x.Len(), x.Rows() - x.Len(), h.D, h.DType.String(), fmt.Sprintf("%x", h.Model), x.Notice()}
	if a.json {
		return a.writeJSON(out)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "index\t%s\nrows\t%d\nremoved\t%d\nembedding\t%d × %s\nmodel\t%s\n", out.Name, out.Rows, out.Removed, out.D, out.DType, out.Model)
	if out.Notice != "" {
		fmt.Fprintf(w, "notice\t%s\n", out.Notice)
	}
	return w.Flush()
}
