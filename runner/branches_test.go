// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/machine"
	"fromage/shaders"
)

// straight runs trunk and continuation whole and sums from all logits.
func straight(t *testing.T, r *Runner, trunk []Token, continuation []int) Branch {
	t.Helper()
	s := r.NewSequence()
	defer s.Close()
	s.AppendTokens(trunk...)
	for _, id := range continuation {
		s.AppendTokens(Token{ID: id})
	}
	out, err := r.Outputs(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	nll := func(at, id int) float64 {
		sum := 0.0
		for _, l := range out.Logits[at] {
			sum += math.Exp(float64(l) - float64(out.Logits[at][id]))
		}
		return math.Log(sum)
	}
	var b Branch
	for i, id := range continuation {
		b.Next += nll(len(trunk)+i-1, id)
		b.Own += nll(len(trunk)+i, id)
	}
	return b
}

func nearBranches(t *testing.T, what string, got, want []Branch) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d branches, want %d", what, len(got), len(want))
	}
	for i := range want {
		if d := max(math.Abs(got[i].Next-want[i].Next), math.Abs(got[i].Own-want[i].Own)); !(d < 1e-3) {
			t.Errorf("%s: continuation %d: %+v, want %+v", what, i, got[i], want[i])
		}
	}
}

// dialogue are trunks that grow and change, and continuations of each: with and without a shared beginning, empty ones, equal ones.
func dialogue(r *Runner) (trunks [][]Token, continuations [][][]int) {
	rng := rand.New(rand.NewPCG(5, 6))
	tokens := func(n int) []Token { return slices.Clone(randomSequences(r, n)[0].Tokens()) }
	ids := func(n int) (out []int) {
		for range n {
			out = append(out, rng.IntN(r.Settings().Vocabulary))
		}
		return out
	}
	many := func(n int, begin ...int) (all [][]int) {
		for i := range n {
			all = append(all, append(slices.Clone(begin), ids(i%5)...))
		}
		return all
	}
	long := tokens(90)
	other := slices.Clone(long)
	other[20].ID++
	trunks = [][]Token{long[:1], long[:12], long[:40], long[:70], other[:60], long[:90], long[:12], long[:12], long[:12]}
	continuations = [][][]int{many(9, 2), many(37, 2), many(3), {{7, 8, 9}}, many(20, 2, 3), many(5, 2), {{4, 5}, {4, 5}}, {{}, {}}, {{4, 5}, {4}, {4, 5, 6}}}
	return trunks, continuations
}

// TestBranches holds continuations on copied keys and values to whole runs, with as many forks as fit and with few.
func TestBranches(t *testing.T) {
	devices(t, func(t *testing.T, r *Runner) {
		for _, most := range []int{0, 1, 4} {
			b := r.NewBranches()
			b.most = most
			trunks, continuations := dialogue(r)
			for i, trunk := range trunks {
				var want []Branch
				for _, c := range continuations[i] {
					want = append(want, straight(t, r, trunk, c))
				}
				got, err := b.Score(context.Background(), trunk, continuations[i])
				if err != nil {
					t.Fatal(err)
				}
				nearBranches(t, fmt.Sprintf("trunk %d, %d forks", i, most), got, want)
			}
			if most > 0 && len(b.forks) > most {
				t.Errorf("%d forks, want at most %d", len(b.forks), most)
			}
			b.Close()
			if n := len(r.kv.sequences); n != 0 {
				t.Errorf("after Close %d sequences have rows", n)
			}
		}
		b := r.NewBranches()
		defer b.Close()
		if _, err := b.Score(context.Background(), nil, [][]int{{1}}); err == nil || !strings.Contains(err.Error(), "at least one token") {
			t.Errorf("without a trunk: %v", err)
		}
		if _, err := b.Score(context.Background(), randomSequences(r, 120)[0].Tokens(), [][]int{make([]int, 9)}); err == nil || !strings.Contains(err.Error(), "128 positions") {
			t.Errorf("beyond the model's positions: %v", err)
		}
		if got, err := b.Score(context.Background(), []Token{{ID: 2}}, nil); err != nil || len(got) != 0 {
			t.Errorf("without continuations: %v, %v", got, err)
		}
	})
}

// TestBranchesSave: a trunk that is run already is not run again.
func TestBranchesSave(t *testing.T) {
	r, err := Load(context.Background(), cpu.New(), compiled(t, shaders.F32), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := r.NewBranches()
	defer b.Close()
	trunk := randomSequences(r, 60)[0].Tokens()
	for _, n := range []int{20, 60, 60, 30} {
		if _, err := b.Score(context.Background(), trunk[:n], [][]int{{1}, {3, 4}}); err != nil {
			t.Fatal(err)
		}
		if b.take(trunk); b.trunk.computed != n {
			t.Errorf("after a trunk of %d tokens %d of the whole are computed", n, b.trunk.computed)
		}
		for _, f := range b.forks {
			if f.computed != n {
				t.Errorf("after a trunk of %d tokens a fork holds %d", n, f.computed)
			}
		}
	}
}

// TestBranchesMemory: where there is no memory for all forks there are fewer; a device that is lost is made good.
func TestBranchesMemory(t *testing.T) {
	ctx, file := context.Background(), compiled(t, shaders.F32)
	dev := &small{cpu.New(), 1 << 30}
	r, err := Load(ctx, dev, file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	trunks, continuations := dialogue(r)
	trunk, all := trunks[2], continuations[1]
	var want []Branch
	for _, c := range all {
		want = append(want, straight(t, r, trunk, c))
	}
	dev.most = 64 * 9 * 2 * 64 * 4 // room for about nine sequences of 64 rows
	b := r.NewBranches()
	defer b.Close()
	got, err := b.Score(ctx, trunk, all)
	if err != nil {
		t.Fatal(err)
	}
	nearBranches(t, "little memory", got, want)
	if n := len(b.forks); n < 1 || n > 8 {
		t.Errorf("with little memory there are %d forks", n)
	}
	for left := range 6 {
		mortal := &mortal{cpu.New(), 1 << 30}
		r, err := Load(ctx, mortal, file, nil)
		if err != nil {
			t.Fatal(err)
		}
		losses := 0
		r.OnLoss(func(context.Context) (gpu.Device, Source, error) {
			losses++
			return cpu.New(), machine.Chunks{Open: file.File, Each: file.Chunks}, nil
		})
		b := r.NewBranches()
		mortal.left = left
		got, err := b.Score(ctx, trunk, all)
		if err != nil || losses != 1 {
			t.Fatalf("device lost after %d steps: %v, made good %d times", left, err, losses)
		}
		nearBranches(t, fmt.Sprintf("device lost after %d steps", left), got, want)
		b.Close()
		r.Close()
	}
}

// small is a device that has no room for larger buffers.
type small struct {
	gpu.Device
	most int
}

func (d *small) NewBuffer(label string, size int) (gpu.Buffer, error) {
	if size > d.most && strings.HasPrefix(label, "kv.") {
		return 0, fmt.Errorf("small: %w", gpu.ErrMemory)
	}
	return d.Device.NewBuffer(label, size)
}
