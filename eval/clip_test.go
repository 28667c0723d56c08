// SPDX-License-Identifier: Apache-2.0

package eval

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"fromage/index"
	"fromage/internal/testmodel"
	"fromage/shaders"
)

// TestCLIPSearch holds a search to cosines of all pictures; one that cannot be read is never found.
func TestCLIPSearch(t *testing.T) {
	r := testmodel.Load(t, golden+"fromage/one-token", shaders.F32)
	dir, opt := images(t, r, false, []string{"1", "2", "3", "4", "5", "6"}, "3")
	c := randomCLIP(t, dir, opt)
	opt.CLIP = c
	ids := []string{"1", "2", "4", "5", "6"}
	var names []string
	for _, id := range []string{"1", "2", "3", "4", "5", "6"} {
		names = append(names, opt.Names[id])
	}
	for _, text := range []string{"the cat", "a dog on the cat's 2000", "", strings.Repeat("the cat ", 40)} {
		scores := plainCLIP(t, opt, text, ids)
		hits, err := c.Search(context.Background(), text, names, 3)
		if err != nil || len(hits) != 3 {
			t.Fatalf("Search(%.20q) = %v, %v", text, hits, err)
		}
		for i, want := range topk(scores, 3) {
			if id := ids[want]; names[hits[i].Row] != opt.Names[id] || math.Abs(float64(hits[i].Score)-scores[want]) > 1e-5 {
				t.Errorf("Search(%.20q)[%d] = %+v, want %s with %v", text, i, hits[i], opt.Names[id], scores[want])
			}
		}
	}
	if hits, err := c.Search(context.Background(), "a", names, 99); err != nil || len(hits) != 5 || slices.ContainsFunc(hits, func(h index.Hit) bool { return h.Row == 2 }) {
		t.Errorf("Search for 99 of 6 = %v, %v, want the 5 that can be read", hits, err)
	}
}
