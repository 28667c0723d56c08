// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fromage/wasm/headless"
	"fromage/wasm/headless/lines"
)

// needGuest skips, loudly, without the guest's program; where everything must be there, that is a failure.
func needGuest(t *testing.T) {
	t.Helper()
	if _, err := headless.Program(); err != nil {
		if os.Getenv("FROMAGE_REQUIRE_BROWSER") != "" {
			t.Fatalf("%v (make guest)", err)
		}
		t.Skipf("SKIPPED, NOTHING TESTED: %v (make guest)", err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

// answers decodes what the program wrote.
func answers(t *testing.T, out string) (all []lines.Line) {
	t.Helper()
	for line := range strings.Lines(out) {
		var l lines.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

// TestHeadless answers good and bad lines; each has an end of its own, and none ends the stream.
func TestHeadless(t *testing.T) {
	needGuest(t)
	pics := pictures(t)
	write(t, filepath.Join(pics, "text.png"), []byte("this is no picture"))
	in := strings.Join([]string{
		`{"id":1,"prompt":[{"image":"exact_32x32.png"},"as a black icon [RET]"],"max_img_per_ret":2}`,
		`garbage`,
		``,
		`{"id":"two","prompt":["Once upon a time"],"num_words":3,"ignore_eos":true}`,
		`{"id":3,"prompt":[{"image":"text.png"}]}`,
		`{"id":4,"prompt":[{"image":"/etc/passwd"}]}`,
		`{"id":5,"prompt":[{"image":"gallery:fxemoji/00090.webp"}]}`,
	}, "\n")
	code, out, errs := run(t, in, "headless", "--files", pics)
	if code != exitOK {
		t.Fatalf("headless = %d, want 0; %s", code, errs)
	}
	var ends []string
	text := map[string]string{}
	for _, l := range answers(t, out) {
		text[string(l.ID)] += l.Text
		if l.Last() {
			ends = append(ends, string(l.ID)+l.Error)
		}
		if l.Pictures != nil && string(l.ID) == "1" && (len(*l.Pictures) != 2 || !strings.HasPrefix((*l.Pictures)[0].Path, galleryPrefix)) {
			t.Errorf("pictures = %+v, want two of the gallery", *l.Pictures)
		}
	}
	want := []string{"1", "lines: request: invalid", `"two"`, "3lines: prompt: item 0: text.png", "4lines: prompt: item 0: /etc/passwd", "5"}
	if len(ends) != len(want) {
		t.Fatalf("answers end with %q, want %q", ends, want)
	}
	for i := range want {
		if !strings.HasPrefix(ends[i], want[i]) {
			t.Errorf("answer %d ends with %q, want %q", i, ends[i], want[i])
		}
	}
	if got, want := text["5"], "an emoji of beer mug"; !strings.Contains(got, want) {
		t.Errorf("caption = %q, want %q in it", got, want)
	}
	if text["1"] != "[RET]" || text[`"two"`] == "" {
		t.Errorf("texts = %q, want [RET] and a beginning", text)
	}
}

// TestHeadlessLimits ends a guest that takes too long, says so, and answers the next line with another.
func TestHeadlessLimits(t *testing.T) {
	needGuest(t)
	// The numbers are far apart on any machine: as many tokens as the model has positions for, and one.
	code, out, errs := run(t, `{"id":1,"prompt":["Once upon a time"],"num_words":500,"temperature":1,"ignore_eos":true,"max_num_rets":0}`+"\n"+`{"id":2,"prompt":["a [RET]"]}`, "headless", "--time", "700ms")
	all := answers(t, out)
	if code != exitOK || len(all) < 3 {
		t.Fatalf("headless = %d, %d lines; %s", code, len(all), errs)
	}
	var first lines.Line
	for _, l := range all {
		if string(l.ID) == "1" && l.Last() {
			first = l
		}
	}
	if !strings.Contains(first.Error, "longer than 700ms") {
		t.Errorf("a long answer ends with %+v, want an error that names the time", first)
	}
	if last := all[len(all)-1]; string(last.ID) != "2" || last.Done == nil {
		t.Errorf("the next answer ends with %+v, want it done", last)
	}
}

func TestHeadlessRefuses(t *testing.T) {
	model := tiny(t)
	broken := write(t, filepath.Join(t.TempDir(), "broken.bundle"), []byte("no bundle"))
	for _, c := range []struct {
		args []string
		part string
	}{
		{[]string{"--memory", "1"}, "--memory"},
		{[]string{"--time", "-1s"}, "--time"},
		{[]string{"--files", "/no/such/folder"}, "/no/such/folder"},
		{[]string{"-m", broken}, "broken.bundle"},
		{[]string{"-m", "none.bundle"}, "none.bundle"},
		{[]string{"-m", model, "-i", broken}, "broken.bundle"},
		{[]string{"--kv", "q8"}, "--kv"},
		{[]string{"x"}, "want 0, have 1"},
	} {
		code, out, errs := run(t, "", append([]string{"headless"}, c.args...)...)
		if code != exitBad || !strings.Contains(errs, c.part) || out != "" {
			t.Errorf("headless %q = %d, %q, %q, want 2 and a line that names %s", c.args, code, out, errs, c.part)
		}
	}
}
