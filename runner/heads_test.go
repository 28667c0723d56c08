// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"testing"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/machine"
	"fromage/shaders"
)

// TestSetHeads: a sequence that goes on after new heads says what a model loaded with them says, and so does one on a device opened after a loss.
func TestSetHeads(t *testing.T) {
	ctx := context.Background()
	b := compiled(t, shaders.F32)
	dev := &mortal{cpu.New(), 1 << 30}
	r, err := Load(ctx, dev, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.OnLoss(func(context.Context) (gpu.Device, Source, error) {
		return cpu.New(), machine.Chunks{Open: b.File, Each: b.Chunks}, nil
	})
	heads, err := r.Heads()
	if err != nil || len(heads) != 8 {
		t.Fatalf("Heads: want 8, have %d, %v", len(heads), err)
	}
	s := r.NewSequence()
	s.AppendTokens(Token{ID: 2}, Token{ID: 9}, Token{ID: r.RET()})
	retrieval := func() []float32 {
		t.Helper()
		s.Truncate(3)
		s.AppendTokens(Token{ID: r.RET()})
		out, err := r.Outputs(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		return out.Retrieval[len(out.Retrieval)-1]
	}
	before := retrieval()
	added := append([]float32(nil), heads["added_tokens"]...)
	for i := range added[len(added)/2:] {
		added[len(added)/2+i] *= -1
	}
	if err := r.SetHeads(map[string][]float32{"added_tokens": added, "logit_scale": {0}}); err != nil {
		t.Fatal(err)
	}
	after := retrieval()
	if differ(before, after) < 1e-3 || r.Scale() != 1 {
		t.Errorf("a new [RET] row changes the embedding by %g, the scale to %g", differ(before, after), r.Scale())
	}
	dev.left = 0
	if again := retrieval(); differ(after, again) != 0 || r.Scale() != 1 {
		t.Errorf("after a loss the embedding differs by %g, the scale is %g", differ(after, again), r.Scale())
	}
	if err := r.SetHeads(heads); err != nil {
		t.Fatal(err)
	}
	if d := differ(before, retrieval()); d != 0 {
		t.Errorf("with the old heads again the embedding differs by %g", d)
	}
	for name, x := range map[string][]float32{"logit_scale": {1, 2}, "nonesuch": {1}, "model.decoder.final_layer_norm.weight": make([]float32, r.Settings().HiddenDim)} {
		if err := r.SetHeads(map[string][]float32{name: x}); err == nil {
			t.Errorf("heads %s of %d values were taken", name, len(x))
		}
	}
}

// differ is the largest difference between two rows.
func differ(a, b []float32) (d float32) {
	for i := range a {
		d = max(d, a[i]-b[i], b[i]-a[i])
	}
	return d
}
