// SPDX-License-Identifier: Apache-2.0

//go:build unix

package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestBenchView opens the page at #bench, where the hidden view offers to measure; the first that it says is that it does. What is measured is
// wasm/browser's test's.
func TestBenchView(t *testing.T) {
	path := need(t)
	p := serve(t, build(t), "127.0.0.1:0")
	b := show(t, path, p.url, chromedp.Flag("enable-unsafe-webgpu", true))
	b.do(t, chromedp.Navigate(strings.TrimSuffix(p.url, "/")+"/#bench"))
	b.until(t, "document.getElementById('bench-measure')")
	b.do(t, chromedp.Click(chromedp.CSS("#bench-measure")))
	b.until(t, "document.getElementById('bench-measure').disabled && document.querySelector('#bench [role=status]').textContent.includes(' of ')")
	b.clean(t)
}
