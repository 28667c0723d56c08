// SPDX-License-Identifier: Apache-2.0

package headless

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"fromage/gpu/host"
	"fromage/wasm/headless/lines"
)

// ErrEnded is what errors match after which a guest answers no more: it came to an end, or was brought to one. Another guest of the Model goes on.
var ErrEnded = errors.New("the guest has ended")

// Guest is one running guest. Its methods may be called from several goroutines; requests wait for one another.
type Guest struct {
	model  *Model
	gpu    *host.Guest
	memory *memory
	ready  lines.Ready

	asking sync.Mutex
	in     *io.PipeWriter // its standard input
	out    *bufio.Scanner // its standard output
	stderr head
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when the program has ended
	why    error         // then
	err    error         // of giving back what it had
}

// maxAnswer is the most bytes of a line that a guest may write.
const maxAnswer = 16 << 20

// Guest starts a guest, which is ready for requests when Guest returns. It lives until Close is called or ctx is done.
func (m *Model) Guest(ctx context.Context) (*Guest, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &Guest{model: m, gpu: m.host.Guest(m.config.Limits), memory: &memory{limit: uint64(m.config.Memory)}, cancel: cancel, ended: make(chan struct{})}
	stdin, in := io.Pipe()
	out, stdout := io.Pipe()
	g.in, g.out = in, bufio.NewScanner(out)
	g.out.Buffer(nil, maxAnswer)
	stop := func() { // whatever the guest is waiting for ends
		stdin.CloseWithError(ErrEnded)
		out.CloseWithError(ErrEnded)
	}
	context.AfterFunc(ctx, stop)
	m.mu.Lock()
	m.guests[g] = struct{}{}
	m.mu.Unlock()
	go func() {
		defer close(g.ended)
		g.why = g.run(ctx, stdin, stdout)
		g.err = g.gpu.Close()
		stop()
	}()
	if err := g.start(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// run runs the program to its end and says why it ended.
func (g *Guest) run(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	c := g.model.config
	args := []string{"guest", "/" + c.Model, c.KV.String()}
	if c.Index != "" {
		args = append(args, "/"+c.Index)
	}
	config := wazero.NewModuleConfig().WithName("").WithArgs(args...).WithStdin(stdin).WithStdout(stdout).WithStderr(&g.stderr).
		WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader).WithNanosleep(func(ns int64) { sleep(ctx, ns) }).
		WithFSConfig(wazero.NewFSConfig().WithFSMount(c.Files, "/"))
	instance, err := g.model.runtime.InstantiateModule(experimental.WithMemoryAllocator(g.gpu.Context(ctx), g.memory), g.model.compiled, config)
	if instance != nil {
		err = errors.Join(err, instance.Close(context.WithoutCancel(ctx)))
	}
	return g.reason(ctx, err)
}

// sleep returns after a time, or when the guest is to end.
func sleep(ctx context.Context, ns int64) {
	select {
	case <-time.After(time.Duration(ns)):
	case <-ctx.Done():
	}
}

// reason says in a line why the program ended.
func (g *Guest) reason(ctx context.Context, err error) error {
	var exit *sys.ExitError
	said, _, _ := strings.Cut(strings.TrimSpace(g.stderr.String()), "\n")
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("headless: %w: %w", ErrEnded, context.Cause(ctx))
	case g.memory.refused.Load():
		return fmt.Errorf("headless: %w: it wanted more than %d bytes of memory", ErrEnded, g.memory.limit)
	case errors.As(err, &exit):
		return fmt.Errorf("headless: %w: exit code %d: %s", ErrEnded, exit.ExitCode(), said)
	case err != nil:
		trap, _, _ := strings.Cut(err.Error(), "\n")
		trap = strings.TrimSuffix(strings.TrimPrefix(trap, "module[] function[_start] failed: "), " (recovered by wazero)")
		return fmt.Errorf("headless: %w: %s", ErrEnded, trap)
	}
	return fmt.Errorf("headless: %w by itself", ErrEnded)
}

// start waits for the guest's first line.
func (g *Guest) start() error {
	line, err := g.line()
	if err != nil {
		return err
	}
	if line.Ready == nil {
		return g.end(errors.New("its first line does not say that it is ready"))
	}
	g.ready = *line.Ready
	return nil
}

// line reads a line.
func (g *Guest) line() (l lines.Line, err error) {
	if !g.out.Scan() {
		if err := g.out.Err(); err != nil && !errors.Is(err, ErrEnded) {
			return l, g.end(err)
		}
		<-g.ended
		return l, g.why
	}
	if err := json.Unmarshal(g.out.Bytes(), &l); err != nil {
		return l, g.end(fmt.Errorf("it wrote %.60q: %w", g.out.Bytes(), err))
	}
	return l, nil
}

// end ends the guest for a reason and returns why it ended.
func (g *Guest) end(reason error) error {
	g.cancel(reason)
	<-g.ended
	return g.why
}

// Ready says what the guest loaded.
func (g *Guest) Ready() lines.Ready { return g.ready }

// Ask puts a request to the guest and calls emit with the lines of its answer as they come, up to the last. The error is the answer's, or one that
// matches ErrEnded; when ctx is done or the time of Config is up, the guest is ended.
func (g *Guest) Ask(ctx context.Context, q lines.Request, emit func(lines.Line)) error {
	data, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("headless: request: %w", err)
	}
	var failed error
	err = g.Send(ctx, data, func(line lines.Line) error {
		if line.Error != "" {
			failed = errors.New(line.Error)
		}
		emit(line)
		return nil
	})
	if err != nil {
		return err
	}
	return failed
}

// Send is Ask with the request as a line, which need not be a good one. It returns emit's error, if there is one, after the answer; otherwise only
// errors that match ErrEnded.
func (g *Guest) Send(ctx context.Context, request []byte, emit func(lines.Line) error) error {
	g.asking.Lock()
	defer g.asking.Unlock()
	if limit := g.model.config.Time; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("the request took longer than %v", limit))
		defer cancel()
	}
	defer context.AfterFunc(ctx, func() { g.cancel(context.Cause(ctx)) })()
	if len(request) >= lines.MaxLine || bytes.ContainsRune(request, '\n') {
		return fmt.Errorf("headless: request: want one line of less than %d bytes, have %d bytes", lines.MaxLine, len(request))
	}
	if _, err := g.in.Write(append(request[:len(request):len(request)], '\n')); err != nil {
		<-g.ended
		return g.why
	}
	var failed error
	for {
		line, err := g.line()
		if err != nil {
			return err
		}
		if failed == nil {
			failed = emit(line)
		}
		if line.Last() {
			return failed
		}
	}
}

// Memory returns how large the guest's memory is; it never shrinks.
func (g *Guest) Memory() int { return int(g.memory.size.Load()) }

// Close ends the guest and frees what it had.
func (g *Guest) Close() error {
	g.cancel(errors.New("it was closed"))
	<-g.ended
	g.model.mu.Lock()
	defer g.model.mu.Unlock()
	delete(g.model.guests, g)
	return g.err
}
