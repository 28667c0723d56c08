// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fromage/assets"
	"fromage/wasm/headless"
	"fromage/wasm/headless/lines"
)

// sandbox is what fromage headless was told.
type sandbox struct {
	files  string        // the folder that the guest may read
	memory int           // MiB
	time   time.Duration // for a line
}

func (a *app) headlessCommand() *cobra.Command {
	var s sandbox
	c := &cobra.Command{
		Use:   "headless",
		Short: "answer prompts in lines of JSON, in a sandbox",
		Long: `Answer prompts with the model as a WebAssembly guest: it reads the files of one folder, computes on --device, and can do nothing else.
A line of standard input is a prompt, of texts and of pictures by their names within --files:

    {"prompt":[{"image":"cat.png"},"Q: What is this image?\nA:"]}
    {"prompt":["an emoji of violin[RET]"],"max_img_per_ret":3,"id":7}

What the model says comes on standard output, {"token":…,"text":…} for each token and {"pictures":[…]} for each [RET]; the answer ends with
{"done":…} or {"error":…}. A line that cannot be answered does not end the stream. A prompt with [RET] in it is answered with pictures alone, unless
num_words says how many tokens to generate; other members are temperature, top_p, seed, ret_scale_factor, min_word_tokens, max_num_rets,
max_img_per_ret and ignore_eos. An id comes back in every line of its answer.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return a.headless(c.Context(), s) },
	}
	flags := c.Flags()
	flags.StringVar(&s.files, "files", ".", "the `FOLDER` whose files the guest may read")
	flags.IntVar(&s.memory, "memory", 1024, "most `MiB` of memory that the guest may take")
	flags.DurationVar(&s.time, "time", 0, "most `TIME` for a line, such as 30s; 0 is no limit")
	a.modelFlag(flags)
	a.kvFlag(flags)
	a.galleryFlag(flags)
	return c
}

func (a *app) headless(ctx context.Context, s sandbox) error {
	if s.memory < 64 || s.memory > 4096 {
		return fmt.Errorf("--memory: want 64 to 4096, have %d", s.memory)
	}
	if s.time < 0 {
		return fmt.Errorf("--time: want 0 or more, have %v", s.time)
	}
	config, err := a.guestFiles(s)
	if err != nil {
		return err
	}
	config.Memory, config.Time = s.memory<<20, s.time
	if config.Wasm, err = headless.Program(); err != nil {
		return err
	}
	dev, err := a.openDevice()
	if err != nil {
		return err
	}
	r := headless.NewRuntime(ctx)
	a.atEnd(func() { r.Close(context.WithoutCancel(ctx)) })
	said := time.AfterFunc(time.Second, func() { fmt.Fprintln(a.stderr, "fromage: compiling the guest; the next start finds it in the cache") })
	var line *progressLine
	config.Progress = func(done, total int64) {
		if line == nil {
			said.Stop()
			line = a.startProgress("loading "+a.modelName(), "B")
		}
		line.set(done, total)
	}
	began := time.Now()
	m, err := headless.Instantiate(ctx, r, dev, config)
	said.Stop()
	a.endProgress()
	if err != nil {
		return err
	}
	a.atEnd(func() { m.Close(context.WithoutCancel(ctx)) })
	a.log.Info("loaded", "model", a.modelName(), "seconds", time.Since(began).Seconds())
	return a.answerLines(ctx, m)
}

// answerLines answers standard input, by a new guest after one has ended.
func (a *app) answerLines(ctx context.Context, m *headless.Model) error {
	g, err := m.Guest(ctx)
	if err != nil {
		return err
	}
	in, failed := a.readLines()
	for {
		var request []byte
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line, ok := <-in:
			if !ok {
				return <-failed
			}
			request = line
		}
		err := g.Send(ctx, request, a.writeAnswer)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, headless.ErrEnded):
			a.log.Error(err.Error())
			if g, err = a.replace(ctx, m, g, request, err); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// replace answers the request that a guest ended of, and starts another guest.
func (a *app) replace(ctx context.Context, m *headless.Model, g *headless.Guest, request []byte, why error) (*headless.Guest, error) {
	q, _ := lines.Parse(request) // for its ID; it is not what is wrong with the line that the guest ended of
	if err := a.writeAnswer(lines.Line{ID: q.ID, Error: why.Error()}); err != nil {
		return nil, err
	}
	if err := g.Close(); err != nil {
		return nil, err
	}
	return m.Guest(ctx)
}

// writeAnswer writes a line of an answer. Pictures of the embedded gallery get the name by which a prompt would name them.
func (a *app) writeAnswer(l lines.Line) error {
	if l.Pictures != nil && a.gallery == "" {
		for i, p := range *l.Pictures {
			(*l.Pictures)[i].Path = galleryPrefix + p.Path
		}
	}
	return a.writeLine(l)
}

// readLines reads standard input but for its empty lines. When it has ended, the error comes, nil if there is none. A read that nobody waits for any
// more goes on until the program ends, since nothing can stop it.
func (a *app) readLines() (<-chan []byte, <-chan error) {
	in, failed := make(chan []byte), make(chan error, 1)
	go func() {
		defer close(in)
		scan := bufio.NewScanner(a.stdin)
		scan.Buffer(nil, lines.MaxLine)
		for scan.Scan() {
			if line := bytes.TrimSpace(scan.Bytes()); len(line) > 0 {
				in <- bytes.Clone(line)
			}
		}
		err := scan.Err()
		if err != nil {
			err = fmt.Errorf("standard input: %w", err)
		}
		failed <- err
	}()
	return in, failed
}

// Names of what the guest is shown besides the files of a folder.
const (
	guestModel = "fromage:model"
	guestIndex = "fromage:index"
)

// guestFiles checks the model, the index and the folder and shows them to the guest.
func (a *app) guestFiles(s sandbox) (c headless.Config, err error) {
	b, err := a.openBundle()
	if err != nil {
		return c, err
	}
	root, err := os.OpenRoot(s.files)
	if err != nil {
		return c, fmt.Errorf("--files: %w", err)
	}
	a.atEnd(func() { root.Close() })
	c = headless.Config{Files: shown{headless.Folder(root), a.model, a.gallery}, Model: guestModel, Index: guestIndex, KV: a.kv}
	id, err := identity(b.Manifest().Settings)
	if err != nil && a.gallery == "" {
		c.Index = ""
		return c, nil
	}
	if err != nil {
		return c, err
	}
	x, name, err := a.openIndex()
	if err != nil {
		return c, err
	}
	err = x.CheckModel(b.Manifest().Settings.SharedDim, id)
	switch {
	case err != nil && a.gallery == "" && a.model != "":
		fmt.Fprintf(a.stderr, "fromage: the embedded gallery is not of %s: no pictures will be retrieved (fromage index build makes a gallery, -i names it)\n", a.model)
		c.Index = ""
	case err != nil:
		return c, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// shown is a folder, and in it the model, the index and the embedded gallery's pictures.
type shown struct {
	fs.FS
	model, index string // paths; "" is the embedded one
}

// Open implements fs.FS.
func (s shown) Open(name string) (fs.File, error) {
	picture, isPicture := strings.CutPrefix(name, galleryPrefix)
	switch {
	case name == guestModel && s.model != "":
		return os.Open(s.model)
	case name == guestModel:
		return assets.Files().Open(assets.BundleFile)
	case name == guestIndex && s.index != "":
		return os.Open(s.index)
	case name == guestIndex:
		return assets.Files().Open(assets.IndexFile)
	case isPicture:
		return assets.Files().Open(picture)
	}
	return s.FS.Open(name)
}
