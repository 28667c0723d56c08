// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/peterh/liner"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/runner"
)

// turn is one exchange of a conversation, with where it began in the sequence.
type turn struct {
	exchange
	at   int           // tokens before it
	sent []runner.Part // what was put to the model, without the line's end between turns
}

// chat is a conversation.
type chat struct {
	a     *app
	r     *runner.Runner
	album *album
	w     io.Writer // where answers go
	lines bool      // write each exchange as a line of JSON
	seq   *runner.Sequence
	opt   runner.Options
	raw   bool
	turns []turn
}

const chatHelp = `A line is a turn: text, and pictures by path anywhere in it (typed, quoted, or dragged onto the terminal); gallery:PATH is one of the gallery.
Ctrl-C stops an answer. A line that begins with a slash is a command:
  /find TEXT       pictures for a caption, such as "an emoji of violin", apart from the conversation
  /set NAME VALUE  change a setting    /show   settings and how full the context is
  /retry           answer again        /undo   take the last turn back
  /reset           begin anew          /save FILE  write the conversation: .html with pictures, .json, else text
  /help            this                /quit   end (Ctrl-D)
`

func (a *app) chatCommand() *cobra.Command {
	o := runner.DefaultOptions()
	raw := false
	c := &cobra.Command{
		Use:   "chat",
		Short: "talk about pictures",
		Long: `Talk with the model about pictures, and have it retrieve some. Each line is put as "Q: …\nA:", the reference's convention for dialogues, pictures
that begin the line before it; with --raw, lines go to the model as they are. A picture alone is captioned where it begins a
conversation; later "What is this?" is asked. What is not a terminal is read line by line.

` + chatHelp,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(); err != nil {
				return err
			}
			r, x, err := a.loadWithAlbum(c.Context())
			if err != nil {
				return err
			}
			return a.chat(c.Context(), r, x, o, raw)
		},
	}
	optionFlags(c.Flags(), &o)
	c.Flags().BoolVar(&raw, "raw", false, "put lines to the model as they are, without Q: and A:")
	a.modelFlag(c.Flags())
	a.kvFlag(c.Flags())
	a.galleryFlag(c.Flags())
	return c
}

// chat talks until the input ends.
func (a *app) chat(ctx context.Context, r *runner.Runner, x *album, o runner.Options, raw bool) error {
	// From here on Ctrl-C stops answers, not the program.
	ctx = context.WithoutCancel(ctx)
	a.release()
	ch := &chat{a: a, r: r, album: x, w: a.stdout, seq: r.NewSequence(), opt: o, raw: raw}
	defer ch.close()
	if a.json {
		ch.w, ch.lines = io.Discard, true
	}
	lines := a.lines()
	defer lines.Close()
	if !a.json && lines.interactive() {
		fmt.Fprintf(a.stdout, "%s on %s. /help says what can be done.\n", a.modelName(), r.Device().Info().Adapter)
	}
	for {
		line, err := lines.next()
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case line == "/quit":
			return nil
		case isCommand(line):
			err = ch.command(ctx, line)
		default:
			err = ch.say(ctx, line)
		}
		switch {
		case errors.Is(err, context.Canceled):
			fmt.Fprintln(a.stderr, "fromage: stopped")
		case err != nil:
			// A mistake ends the turn, not the conversation.
			fmt.Fprintln(a.stderr, "fromage:", err)
		}
	}
}

// isCommand tells a command from a path that begins with a slash.
func isCommand(line string) bool {
	first := strings.Fields(line)[0]
	return first[0] == '/' && !strings.ContainsAny(first[1:], "/.\\")
}

// say puts a line to the model and streams the answer.
func (ch *chat) say(ctx context.Context, line string) error {
	items := parseLine(line)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	sent, err := parts(ctx, ch.r, ch.dress(items))
	if err != nil {
		return err
	}
	return ch.answer(ctx, turn{exchange: exchange{Prompt: items}, at: ch.seq.Len(), sent: sent})
}

// dress puts the dialogue's "Q: " and "\nA:" around a turn: after the pictures that begin it. Pictures alone are captioned where they begin the
// conversation; later, where a caption would be out of its place, they are asked about.
func (ch *chat) dress(items []item) []item {
	out := append([]item{}, items...)
	first := 0
	for first < len(out) && out[first].Image != "" {
		first++
	}
	switch {
	case ch.raw:
		return out
	case first == len(out) && len(ch.turns) == 0:
		return out
	case first == len(out):
		out = append(out, item{Text: "What is this?"})
	}
	out[first].Text = "Q: " + out[first].Text
	if last := &out[len(out)-1]; last.Image == "" {
		last.Text += "\nA:"
	} else {
		out = append(out, item{Text: "\nA:"})
	}
	for i := first + 1; i < len(out); i++ {
		if out[i].Image == "" && !strings.HasPrefix(out[i].Text, "\n") {
			out[i].Text = " " + out[i].Text
		}
	}
	return out
}

// answer generates for a turn that begins where the sequence ends. A turn that fails leaves no trace; one that is stopped stays.
func (ch *chat) answer(ctx context.Context, t turn) error {
	var in []runner.Part
	if t.at > 0 && !ch.raw {
		in = append(in, runner.Part{Text: "\n"})
	}
	if err := ch.seq.Append(append(in, t.sent...)...); err != nil {
		ch.seq.Truncate(t.at)
		return err
	}
	if most := ch.r.Settings().MaxPositions; ch.seq.Len() >= most {
		n := ch.seq.Len()
		ch.seq.Truncate(t.at)
		return fmt.Errorf("the conversation has no room for this: it would be %d tokens, the model reads %d: /undo a turn, /reset, or say it shorter", n, most-1)
	}
	s := &stream{w: ch.w, album: ch.album}
	began := time.Now()
	answer, err := ch.seq.Generate(ctx, ch.opt, ch.album.searcher(), s.emit)
	s.endLine()
	if err == nil {
		err = s.err
	}
	stopped := errors.Is(err, context.Canceled) && answer != nil
	if err != nil && !stopped {
		ch.seq.Truncate(t.at)
		return err
	}
	e, err := newExchange(ch.album, t.Prompt, answer)
	if err != nil {
		return err
	}
	if stopped {
		e.Stop = "stopped"
		fmt.Fprintln(ch.a.stderr, "fromage: stopped")
	}
	if e.Stop == "context" {
		fmt.Fprintf(ch.a.stderr, "fromage: the answer was cut: the conversation fills the model's %d positions: /undo or /reset\n", ch.r.Settings().MaxPositions)
	}
	ch.a.log.Info("answered", "tokens", e.Tokens, "stop", e.Stop, "context", ch.seq.Len(), "seconds", time.Since(began).Seconds())
	t.exchange = *e
	ch.turns = append(ch.turns, t)
	if ch.lines {
		return ch.a.writeLine(t.exchange)
	}
	return nil
}

func (ch *chat) close() { ch.seq.Close() }

// command does what a line that begins with a slash says.
func (ch *chat) command(ctx context.Context, line string) error {
	f := strings.Fields(line)
	w := ch.a.stderr
	switch {
	case f[0] == "/help":
		fmt.Fprint(w, chatHelp)
		fmt.Fprintln(w, "Settings: ret-scale-factor (or ret-scale), num-words, temperature, top-p, max-num-rets, max-img-per-ret, min-word-tokens, seed")
	case f[0] == "/show":
		ch.show()
	case f[0] == "/reset":
		ch.seq.Close()
		ch.seq, ch.turns = ch.r.NewSequence(), nil
	case f[0] == "/find":
		return ch.find(ctx, strings.TrimSpace(strings.TrimPrefix(line, "/find")))
	case f[0] == "/undo":
		_, err := ch.undo()
		return err
	case f[0] == "/retry":
		return ch.retry(ctx)
	case f[0] == "/set" && len(f) == 3:
		return ch.set(f[1], f[2])
	case f[0] == "/set":
		return errors.New("want /set NAME VALUE, such as /set ret-scale 1.5")
	case f[0] == "/save":
		name := strings.TrimSpace(strings.TrimPrefix(line, "/save"))
		if name == "" {
			return errors.New("want /save FILE")
		}
		return ch.save(name)
	default:
		return fmt.Errorf("there is no command %s: /help lists them", f[0])
	}
	return nil
}

// find lists pictures for a prompt of its own; the conversation does not hear of it.
func (ch *chat) find(ctx context.Context, line string) error {
	items := parseLine(line)
	if items == nil {
		return errors.New("want /find TEXT, such as /find an emoji of violin")
	}
	if ch.album == nil {
		return errors.New("there are no pictures to find: start with -i INDEX")
	}
	e, err := retrieve(ctx, ch.r, ch.album, items, runner.RetrieveOptions{MaxImgPerRet: max(4, ch.opt.MaxImgPerRet)})
	if err != nil {
		return err
	}
	if ch.lines {
		return ch.a.writeLine(e)
	}
	for _, p := range e.Answer {
		writePictures(ch.w, p)
	}
	return nil
}

// undo takes the last turn back.
func (ch *chat) undo() (turn, error) {
	if len(ch.turns) == 0 {
		return turn{}, errors.New("there is no turn to take back")
	}
	last := ch.turns[len(ch.turns)-1]
	ch.turns = ch.turns[:len(ch.turns)-1]
	ch.seq.Truncate(last.at)
	return last, nil
}

// retry answers the last turn again, with the next seed.
func (ch *chat) retry(ctx context.Context) error {
	last, err := ch.undo()
	if err != nil {
		return err
	}
	ch.opt.Seed++
	if ch.opt.Temperature == 0 {
		fmt.Fprintln(ch.a.stderr, "fromage: temperature is 0: the answer will be the same unless a setting changed")
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	return ch.answer(ctx, last)
}

// settings are the options by name, as flags are.
func settings(o *runner.Options) *pflag.FlagSet {
	flags := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		name = strings.ReplaceAll(name, "_", "-")
		if name == "ret-scale" {
			name = "ret-scale-factor"
		}
		return pflag.NormalizedName(name)
	})
	optionFlags(flags, o)
	return flags
}

func (ch *chat) set(name, value string) error {
	o := ch.opt
	flags := settings(&o)
	if flags.Lookup(name) == nil {
		return fmt.Errorf("there is no setting %s: /show lists them", name)
	}
	if err := flags.Set(name, value); err != nil {
		return fmt.Errorf("%s: want a number in its range, have %q", name, value)
	}
	if err := o.Check(); err != nil {
		return err
	}
	ch.opt = o
	return nil
}

func (ch *chat) show() {
	o := ch.opt
	settings(&o).VisitAll(func(f *pflag.Flag) { fmt.Fprintf(ch.a.stderr, "  %-17s %-6s %s\n", f.Name, f.Value, f.Usage) })
	fmt.Fprintf(ch.a.stderr, "  %d turns, %d of %d tokens\n", len(ch.turns), ch.seq.Len(), ch.r.Settings().MaxPositions)
}

// save writes the conversation; a file that is there is replaced only when the new one is complete.
func (ch *chat) save(name string) error {
	var all []exchange
	for _, t := range ch.turns {
		all = append(all, t.exchange)
	}
	return writeFile(name, func(w io.Writer) error {
		switch {
		case strings.HasSuffix(name, ".html"):
			return writeSheet(w, "A conversation with "+ch.a.modelName(), all)
		case strings.HasSuffix(name, ".json"):
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(all)
		}
		return writeTranscript(w, all)
	})
}

func writeTranscript(w io.Writer, all []exchange) error {
	var b strings.Builder
	for _, e := range all {
		b.WriteString(">")
		for _, it := range e.Prompt {
			b.WriteString(" " + it.Text + it.Image)
		}
		b.WriteString("\n")
		for _, p := range e.Answer {
			if text := strings.TrimSpace(p.Text); text != "" {
				fmt.Fprintln(&b, text)
			}
			writePictures(&b, p)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// lineReader is where a conversation's lines come from: an edited prompt on a terminal, else the input as it is.
type lineReader struct {
	edit *liner.State
	scan *bufio.Scanner
}

func (a *app) lines() *lineReader {
	if isTerminal(a.stdin) && isTerminal(a.stdout) {
		edit := liner.NewLiner()
		edit.SetCtrlCAborts(true)
		edit.SetMultiLineMode(true)
		return &lineReader{edit: edit}
	}
	scan := bufio.NewScanner(a.stdin)
	scan.Buffer(nil, maxText)
	return &lineReader{scan: scan}
}

func (l *lineReader) interactive() bool { return l.edit != nil }

func (l *lineReader) next() (string, error) {
	if l.edit != nil {
		line, err := l.edit.Prompt("> ")
		if err == nil && strings.TrimSpace(line) != "" {
			l.edit.AppendHistory(line)
		}
		return line, err
	}
	if l.scan.Scan() {
		return l.scan.Text(), nil
	}
	if err := l.scan.Err(); err != nil {
		return "", fmt.Errorf("standard input: %w", err)
	}
	return "", io.EOF
}

// Close gives the terminal back as it was.
func (l *lineReader) Close() {
	if l.edit != nil {
		l.edit.Close()
	}
}
