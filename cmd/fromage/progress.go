// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"fromage/runner"
)

// progressLine says how far an operation is: on a terminal one line that is drawn again at most ten times a second, elsewhere a line every five
// seconds. An operation shorter than the first of these says nothing.
type progressLine struct {
	w           io.Writer
	what, unit  string
	interactive bool
	began, last time.Time
	from        int64 // what was done before it began
	drawn       bool
}

// startProgress begins a line; endProgress takes it away.
func (a *app) startProgress(what, unit string) *progressLine {
	a.endProgress()
	now := time.Now()
	a.line = &progressLine{w: a.stderr, what: what, unit: unit, interactive: isTerminal(a.stderr), began: now, last: now}
	return a.line
}

// watch shows an operation in several steps, which its progress names: a line for each. What a step's first word says is done was done before.
func (a *app) watch(unit string) func(runner.Progress) {
	what := ""
	return func(p runner.Progress) {
		if p.What != what {
			what = p.What
			a.startProgress(what, unit).from = p.Done
		}
		a.line.set(p.Done, p.Total)
	}
}

// endProgress clears the line, if there is one.
func (a *app) endProgress() {
	if a.line != nil && a.line.drawn {
		fmt.Fprint(a.stderr, "\r\x1b[K")
	}
	a.line = nil
}

func isTerminal(v any) bool {
	if o, ok := v.(*output); ok {
		v = o.Writer
	}
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// set says that done of total is done. It is cheap: call it as often as there is news.
func (p *progressLine) set(done, total int64) {
	pause := 5 * time.Second
	if p.interactive {
		pause = 100 * time.Millisecond
	}
	now := time.Now()
	if now.Sub(p.last) < pause {
		return
	}
	p.last = now
	text := p.text(done, total, now.Sub(p.began))
	if p.interactive {
		p.drawn = true
		fmt.Fprint(p.w, "\r\x1b[K"+text)
		return
	}
	fmt.Fprintln(p.w, text)
}

// text is the line: done/total unit, rate, time left.
func (p *progressLine) text(done, total int64, passed time.Duration) string {
	rate := float64(done-p.from) / passed.Seconds()
	left := ""
	if rate > 0 && total > done {
		seconds := float64(total-done) / rate
		left = ", " + (time.Duration(seconds+1) * time.Second).String() + " left"
	}
	if p.unit == "B" {
		return fmt.Sprintf("%s: %s/%s, %s/s%s", p.what, byteSize(done), byteSize(total), byteSize(int64(rate)), left)
	}
	unit := ""
	if p.unit != "" {
		unit = " " + p.unit
	}
	return fmt.Sprintf("%s: %d/%d%s, %.3g/s%s", p.what, done, total, unit, rate, left)
}

// byteSize writes a number of bytes for people, in powers of 1000.
func byteSize(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	x, i := float64(n), 0
	for x >= 999.5 && i < len(units)-1 {
		x, i = x/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", x, units[i])
}
