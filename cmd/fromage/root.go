// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fromage/shaders"
)

// Exit codes.
const (
	exitOK          = 0
	exitNo          = 1
	exitBad         = 2
	exitInterrupted = 130 // as shells say it: 128 + SIGINT
)

// app is one run of the program: where it reads and writes, and what the common flags say.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	device  string         // --device
	model   string         // --model; "" is the embedded one
	gallery string         // --index; "" is the embedded one
	json    bool           // --json
	logFile string         // --log
	kv      shaders.Format // --kv

	log     *slog.Logger
	release context.CancelFunc // gives Ctrl-C back to the system; contexts made by doMain are cancelled
	closers []func()           // run last to first at the end
	line    *progressLine      // the progress being drawn, if any
	tuned   tuned
}

// no is an error that says: the input was good, and the answer is no. The program exits with 1.
type no struct{ error }

func (n no) Unwrap() error { return n.error }

// doMain runs the program and returns its exit code.
func doMain(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, release := signal.NotifyContext(context.Background(), heard()...)
	defer release()
	// A second Ctrl-C ends the program at once, should the first not be heard.
	context.AfterFunc(ctx, release)
	return runMain(ctx, release, args, stdin, stdout, stderr)
}

// runMain is doMain until ctx ends; release gives Ctrl-C back to the system.
func runMain(ctx context.Context, release context.CancelFunc, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{Writer: stdout}
	a := &app{stdin: stdin, stdout: out, stderr: stderr, log: slog.New(slog.DiscardHandler), release: release}
	defer a.close()
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.err
	}
	return a.exit(err)
}

// output is standard output that remembers the first error of writing, so that a full disk is told once, at the end, wherever it was met.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// heard are the signals that end an operation in order; what the caller has the program ignore, as nohup does, stays ignored.
func heard() []os.Signal {
	signals := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	return signals
}

// exit ends with one line about what went wrong, if anything did.
func (a *app) exit(err error) int {
	a.endProgress()
	var n no
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(a.stderr, "fromage: interrupted")
		return exitInterrupted
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	fmt.Fprintln(a.stderr, "fromage:", line)
	a.log.Error(line)
	if errors.As(err, &n) {
		return exitNo
	}
	return exitBad
}

func (a *app) close() {
	for i := len(a.closers) - 1; i >= 0; i-- {
		a.closers[i]()
	}
}

// atEnd has f run when the program ends, before what was put in earlier.
func (a *app) atEnd(f func()) { a.closers = append(a.closers, f) }

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fromage",
		Short: "a language model that reads and returns pictures, on WebGPU",
		Long: `fromage runs FROMAGe: a frozen language model (OPT) and a frozen vision tower (CLIP), joined by learned linear maps and a [RET] token,
so that pictures and text go in, in any order, and text and retrieved pictures come out.

A small model and a gallery of pictures are part of the program: "fromage demo" shows what it does.
Pictures are PNG, JPEG, WebP, GIF or BMP files; gallery:PATH is a picture of the embedded gallery.`,
		SilenceUsage: true, SilenceErrors: true, DisableSuggestions: true,
		Args:              cobra.NoArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.begin() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetIn(a.stdin)
	flags := root.PersistentFlags()
	flags.StringVar(&a.device, "device", "auto", "what computes: auto (a GPU, else cpu), gpu (the best WebGPU adapter, be it software), gpu:NAME (an adapter by part of its name), cpu (Go alone) or twins (Go alone, slowly: the oracle)")
	flags.BoolVar(&a.json, "json", false, "write JSON: one document, or a line for each result of a stream")
	flags.StringVar(&a.logFile, "log", "", "append what happens and how long it takes to this `FILE` (- is standard error)")
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		a.compileCommand(), a.infoCommand(), a.indexCommand(),
		a.chatCommand(), a.askCommand(), a.captionCommand(), a.retrieveCommand(), a.scoreCommand(), a.demoCommand(),
		a.trainCommand(), a.exportCommand(), a.evalCommand(),
		a.serveCommand(), a.headlessCommand(), a.pushCommand(), a.pullCommand(), a.adminCommand(),
		a.doctorCommand(), a.verifyCommand(), a.agreeCommand(), a.benchCommand(), a.versionCommand(),
	)
	return root
}

// helpCommand is cobra's, but for an error where there is no such command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "say more about a command",
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return fmt.Errorf("unknown command %q for %q", rest[0], found.CommandPath())
			}
			return found.Help()
		},
	}
}

const many = math.MaxInt

// takes holds a command to a number of arguments.
func takes(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if n := len(args); n < least || n > most {
			number := strconv.Itoa(least)
			if most == many {
				number += " or more"
			} else if most > least {
				number += fmt.Sprint(" to ", most)
			}
			return fmt.Errorf("%s: arguments: want %s, have %d; usage: %s", c.Name(), number, n, c.UseLine())
		}
		return nil
	}
}

// begin checks the common flags.
func (a *app) begin() error {
	if !slices.Contains([]string{"auto", "gpu", "cpu", "twins"}, a.device) && !strings.HasPrefix(a.device, "gpu:") {
		return fmt.Errorf("--device: want auto, gpu, gpu:NAME, cpu or twins, have %q", a.device)
	}
	w := a.stderr
	switch a.logFile {
	case "":
		return nil
	case "-":
	default:
		f, err := os.OpenFile(a.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
		if err != nil {
			return fmt.Errorf("--log: %w", err)
		}
		a.atEnd(func() { f.Close() })
		w = f
	}
	a.log = slog.New(slog.NewTextHandler(w, nil))
	a.log.Info("start", "version", version())
	return nil
}

// modelFlag adds -m.
func (a *app) modelFlag(flags *pflag.FlagSet) {
	flags.StringVarP(&a.model, "model", "m", "", "the model, a `BUNDLE` that fromage compile made (default: the embedded one)")
}

// kvFlag adds --kv.
func (a *app) kvFlag(flags *pflag.FlagSet) {
	flags.Var(wide{&a.kv}, "kv", "the `FORMAT` in which keys and values of attention are kept: f32, or f16 for half the memory of a conversation and less to read after a long one")
}

// wide is a flag for a format that is f32 or f16.
type wide struct{ *shaders.Format }

// Type is what help calls its value.
func (wide) Type() string { return "FORMAT" }

// Set reads one of the two.
func (w wide) Set(name string) error {
	f, err := shaders.ParseFormat(name)
	if err == nil {
		err = checkWide(f)
	}
	if err == nil {
		*w.Format = f
	}
	return err
}

func checkWide(f shaders.Format) error {
	if f != shaders.F32 && f != shaders.F16 {
		return fmt.Errorf("want f32 or f16, have %v", f)
	}
	return nil
}

// galleryFlag adds -i.
func (a *app) galleryFlag(flags *pflag.FlagSet) {
	flags.StringVarP(&a.gallery, "index", "i", "", "the pictures to retrieve from, an `INDEX` that fromage index made with the same model (default: the embedded one)")
}

// writeJSON writes one document.
func (a *app) writeJSON(v any) error { return indented(a.stdout, v) }

func indented(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeLine writes one line of a stream of documents.
func (a *app) writeLine(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
