// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/runner"
)

// item is one piece of a prompt as people give it: a text, or a picture's name where Image is set.
type item struct {
	Text  string `json:"text,omitempty"`
	Image string `json:"image,omitempty"`
}

// pictureExtensions are those by which an argument or a word is taken for a picture; --image takes any file.
var pictureExtensions = []string{".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}

// isPicture says whether a word stands for a picture: a gallery: name, or a name with a picture's extension that exists or has no space in it, so
// that a name mistyped is an error, not text.
func isPicture(word string) bool {
	if strings.HasPrefix(word, galleryPrefix) {
		return true
	}
	ext := strings.ToLower(filepath.Ext(word))
	for _, e := range pictureExtensions {
		if ext != e || len(filepath.Base(word)) == len(e) {
			continue
		}
		info, err := os.Stat(word)
		return err == nil && info.Mode().IsRegular() || !strings.ContainsAny(word, " \t\n")
	}
	return false
}

// promptFlags are the pieces of a prompt on a command line: arguments and --image flags, in the order in which they stand.
type promptFlags struct {
	flags  *pflag.FlagSet
	images []placed
	raw    bool
}

// placed is a picture that stands before argument number at.
type placed struct {
	at   int
	name string
}

// imageFlag is --image. While flags are parsed, NArg counts the arguments before the one at hand, which tells their order.
type imageFlag struct{ *promptFlags }

func (f imageFlag) String() string { return "" }
func (f imageFlag) Type() string   { return "FILE" }
func (f imageFlag) Set(name string) error {
	if name == "" {
		return errors.New("want a file's name")
	}
	f.images = append(f.images, placed{f.flags.NArg(), name})
	return nil
}

const promptHelp = `
The prompt is the arguments in the order in which they stand: --image FILE is a picture, as is an argument that names a PNG, JPEG, WebP, GIF or BMP
file or gallery:PATH; - reads a text from standard input; anything else is text, in which \n, \t and \\ are a line's end, a tab and a backslash
(--no-escapes leaves them).`

// newPromptFlags adds the prompt's flags to a command.
func newPromptFlags(c *cobra.Command) *promptFlags {
	p := &promptFlags{flags: c.Flags()}
	c.Flags().Var(imageFlag{p}, "image", "a picture at this place of the prompt; may come again")
	c.Flags().BoolVar(&p.raw, "no-escapes", false, `take \n, \t and \\ in arguments as they are`)
	return p
}

// items puts arguments and pictures in order.
func (p *promptFlags) items(ctx context.Context, args []string, stdin io.Reader) ([]item, error) {
	var items []item
	images := p.images
	for i := 0; i <= len(args); i++ {
		for len(images) > 0 && images[0].at == i {
			items = append(items, item{Image: images[0].name})
			images = images[1:]
		}
		if i == len(args) {
			break
		}
		one, err := p.argument(ctx, args[i], stdin)
		if err != nil {
			return nil, err
		}
		if one != (item{}) {
			items = append(items, one)
		}
	}
	if len(items) == 0 {
		return nil, errors.New("the prompt is empty: want a text or a picture")
	}
	return items, nil
}

func (p *promptFlags) argument(ctx context.Context, arg string, stdin io.Reader) (item, error) {
	switch {
	case arg == "-":
		text, err := readText(ctx, stdin)
		if err != nil {
			return item{}, fmt.Errorf("standard input: %w", err)
		}
		return item{Text: strings.TrimSuffix(text, "\n")}, nil
	case isPicture(arg):
		return item{Image: arg}, nil
	case p.raw:
		return item{Text: arg}, nil
	}
	return item{Text: unescape(arg)}, nil
}

// maxText is the most bytes of text read from standard input; no model has room for as much.
const maxText = 1 << 20

// readText reads all there is, or returns when ctx is done; the read, which nothing can stop, then goes on until the program ends.
func readText(ctx context.Context, r io.Reader) (string, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(r, maxText+1))
		if err == nil && len(text) > maxText {
			err = fmt.Errorf("want at most %d bytes", maxText)
		}
		done <- result{text, err}
	}()
	select {
	case got := <-done:
		return string(got.text), got.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// unescape replaces \n, \t and \\; a backslash before anything else stays.
var unescape = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`).Replace

// parts reads the prompt's pictures and makes what the runner takes.
func parts(ctx context.Context, r *runner.Runner, items []item) ([]runner.Part, error) {
	var names []string
	for _, it := range items {
		if it.Image != "" {
			names = append(names, it.Image)
		}
	}
	images, err := embed(ctx, r, names...)
	if err != nil {
		return nil, err
	}
	var out []runner.Part
	for _, it := range items {
		if it.Image == "" {
			out = append(out, runner.Part{Text: it.Text})
			continue
		}
		out = append(out, runner.Part{Image: &images[0]})
		images = images[1:]
	}
	if !slices.ContainsFunc(items, func(it item) bool { return it.Image == "" }) {
		// A caption begins with the leading </s> that every text has; without it the model would have to begin its answer with one.
		out = append(out, runner.Part{})
	}
	return out, nil
}

// parseLine splits a line of a conversation into texts and pictures. A picture is a word, quoted, with escaped spaces, or a file:// address, as
// terminals write it when a file is dragged onto them.
func parseLine(line string) []item {
	var items []item
	text := ""
	flush := func() {
		if strings.TrimSpace(text) != "" {
			items = append(items, item{Text: strings.TrimSpace(text)})
		}
		text = ""
	}
	for line != "" {
		if line[0] == ' ' || line[0] == '\t' {
			text, line = text+line[:1], line[1:]
			continue
		}
		name, length := word(line)
		if tail := strings.TrimRight(name, ",.;:?!"); !isPicture(name) && isPicture(tail) {
			length -= len(name) - len(tail)
			name = tail
		}
		if isPicture(name) {
			flush()
			items = append(items, item{Image: name})
		} else {
			text += line[:length]
		}
		line = line[length:]
	}
	flush()
	return items
}

// word reads the word that line begins with, and returns what it stands for and its length in line.
func word(line string) (name string, length int) {
	if q := line[0]; q == '\'' || q == '"' {
		if s, n := quoted(line); isPicture(localPath(s)) {
			return localPath(s), n
		}
		if end := strings.IndexByte(line[1:], q); end >= 0 && isPicture(localPath(line[1:1+end])) {
			return localPath(line[1 : 1+end]), end + 2
		}
	}
	var b strings.Builder
	i := 0
	for ; i < len(line) && line[i] != ' ' && line[i] != '\t'; i++ {
		if line[i] == '\\' && i+1 < len(line) && strings.IndexByte(` \'"()[]&;!$`, line[i+1]) >= 0 {
			i++
		}
		b.WriteByte(line[i])
	}
	return localPath(b.String()), i
}

// quoted reads the word that line begins with as a shell does, which is how terminals write a name with a quote in it: 'it'\”s.png'. It returns ""
// where a quote stays open.
func quoted(line string) (word string, length int) {
	var b strings.Builder
	open := byte(0) // the quote that is open
	i := 0
	for ; i < len(line) && (open != 0 || line[i] != ' ' && line[i] != '\t'); i++ {
		switch c := line[i]; {
		case c == open:
			open = 0
		case open == 0 && (c == '\'' || c == '"'):
			open = c
		case c == '\\' && open != '\'' && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		default:
			b.WriteByte(c)
		}
	}
	if open != 0 {
		return "", 0
	}
	return b.String(), i
}

// localPath turns a file:// address or a name that begins with ~/ into a path.
func localPath(s string) string {
	if strings.HasPrefix(s, "file://") {
		if u, err := url.Parse(s); err == nil && u.Path != "" {
			return filepath.FromSlash(u.Path)
		}
	}
	if rest, ok := strings.CutPrefix(s, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return s
}
