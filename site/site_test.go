// SPDX-License-Identifier: Apache-2.0

package site

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"fromage/assets"
)

// TestExamples checks that the pictures of the page's examples are in the gallery, which is made anew now and then.
func TestExamples(t *testing.T) {
	text, err := fs.ReadFile(Files(), "chat.js")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`picture: '([^']+)'`).FindAllStringSubmatch(string(text), -1)
	if len(all) < 4 {
		t.Fatalf("chat.js names %d pictures, want 4 or more", len(all))
	}
	for _, m := range all {
		if _, err := assets.Picture(m[1]); err != nil {
			t.Errorf("an example's picture: %v", err)
		}
	}
}

// TestNothingForeign checks that no file names another server or carries an inline script or style, which the server's policy forbids.
func TestNothingForeign(t *testing.T) {
	names, err := fs.Glob(Files(), "*")
	if err != nil {
		t.Fatal(err)
	}
	foreign := regexp.MustCompile(`(?:https?:)?//[a-z0-9-]+\.[a-z]`)
	inline := regexp.MustCompile(`<style|\sstyle=|<script>|\son[a-z]+="`)
	for _, name := range names {
		data, err := fs.ReadFile(Files(), name)
		if err != nil {
			continue // a folder
		}
		text := strings.ReplaceAll(string(data), "http://www.w3.org/2000/svg", "")
		if m := foreign.FindString(text); m != "" {
			t.Errorf("%s names %s", name, m)
		}
		if m := inline.FindString(text); m != "" && strings.HasSuffix(name, ".html") {
			t.Errorf("%s has inline %s", name, m)
		}
	}
}
