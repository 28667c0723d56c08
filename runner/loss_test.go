// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"fromage/gpu"
	"fromage/gpu/cpu"
	"fromage/internal/kerneltest"
	"fromage/machine"
	"fromage/shaders"
)

// mortal is a device that is lost after a number of submits and reads.
type mortal struct {
	gpu.Device
	left int
}

func (d *mortal) step() error {
	if d.left--; d.left < 0 {
		return fmt.Errorf("mortal: %w", gpu.ErrLost)
	}
	return nil
}

func (d *mortal) Submit(l *gpu.List) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.Device.Submit(l)
}

func (d *mortal) Read(b gpu.Buffer, offset int, dst []byte) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.Device.Read(b, offset, dst)
}

// TestRecovery loses the device at every step of a conversation: the answers are the same, and a device that is lost over and over is an error.
func TestRecovery(t *testing.T) {
	ctx, b := context.Background(), compiled(t, shaders.F32)
	source := machine.Chunks{Open: b.File, Each: b.Chunks}
	opt := DefaultOptions()
	opt.NumWords, opt.Temperature, opt.TopP, opt.Seed, opt.IgnoreEOS = 6, 1.2, 0.95, 7, true
	as := func(dev gpu.Device) gpu.Device { return dev }
	// talk says the answers of two turns, with a picture that is read in between, on a device that lasts for so many steps.
	talk := func(life int) (ids []int32, losses int, err error) {
		dev := &mortal{cpu.New(), 1 << 30}
		r, err := Load(ctx, as(dev), b, nil)
		if err != nil {
			t.Fatal(err)
		}
		dev.left = life
		r.OnLoss(func(context.Context) (gpu.Device, Source, error) {
			losses++
			return as(cpu.New()), source, nil
		})
		s := r.NewSequence()
		defer s.Close()
		for _, text := range []string{"Q: What is this?\nA:", "\nQ: And now?\nA:"} {
			side := b.Manifest().Settings.ImageSize
			images, err := r.Embed(ctx, [][]float32{make([]float32, 3*side*side)}, nil)
			if err != nil {
				return nil, losses, err
			}
			if err := s.Append(Part{Image: &images[0]}, Part{Text: text}); err != nil {
				return nil, losses, err
			}
			answer, err := s.Generate(ctx, opt, nil, nil)
			if err != nil {
				return nil, losses, err
			}
			ids = append(ids, answer.IDs...)
		}
		return ids, losses, nil
	}
	survive := func(steps int) {
		t.Helper()
		want, losses, err := talk(1 << 30)
		if err != nil || losses != 0 || len(want) < 4 {
			t.Fatalf("without a loss: %v, %d losses, %v", want, losses, err)
		}
		for life := 0; ; life++ {
			got, losses, err := talk(life)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("lost after %d steps: %v, %v, want %v", life, got, err, want)
			}
			if losses == 0 {
				if life < steps {
					t.Errorf("the conversation took %d steps, want more to lose the device at", life)
				}
				break
			}
		}
	}
	survive(20)
	opt.Temperature, opt.TopP = 0, 1
	as = kerneltest.AsHardware // several tokens a submit
	survive(12)

	dev := &mortal{cpu.New(), 1 << 30}
	r, err := Load(ctx, dev, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	dev.left = 0
	s := randomSequences(r, 3)[0]
	tries, no := 0, errors.New("no other device")
	r.OnLoss(func(context.Context) (gpu.Device, Source, error) {
		tries++
		return &mortal{cpu.New(), 0}, source, nil
	})
	if _, err := r.Outputs(ctx, s); !errors.Is(err, gpu.ErrLost) || tries != maxLosses {
		t.Errorf("lost over and over: %v after %d tries, want gpu.ErrLost after %d", err, tries, maxLosses)
	}
	r.OnLoss(func(context.Context) (gpu.Device, Source, error) { return nil, nil, no })
	if _, err := r.Outputs(ctx, s); !errors.Is(err, no) {
		t.Errorf("no device to reopen: %v, want %v", err, no)
	}
}

// TestKernels: all that a model runs at the sizes asked for is among the kernels that are named before.
func TestKernels(t *testing.T) {
	b := compiled(t, shaders.Q8)
	for _, as := range []gpu.Device{cpu.New(), kerneltest.AsHardware(cpu.New())} {
		dev := &counting{as, map[string]bool{}}
		r, err := Load(context.Background(), dev, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		kernels, err := Kernels(dev.Info(), b.Manifest(), shaders.F32, 1, 9)
		if err != nil {
			t.Fatal(err)
		}
		s := randomSequences(r, 9)[0]
		if err := s.Continue(context.Background(), 3); err != nil {
			t.Fatal(err)
		}
		side := b.Manifest().Settings.ImageSize
		if _, err := r.Embed(context.Background(), [][]float32{make([]float32, 3*side*side)}, nil); err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{}
		for _, k := range kernels {
			if named[k.Name] {
				t.Errorf("Kernels names %s twice", k.Name)
			}
			named[k.Name] = true
		}
		for name := range dev.compiled {
			if !named[name] {
				t.Errorf("%s was run, and is not among Kernels", name)
			}
		}
		if len(dev.compiled) < 5 {
			t.Errorf("%d kernels were run", len(dev.compiled))
		}
	}
}

// TestLongPast: from 65 tokens on, a device on which a CPU plays a GPU attends in parts, by kernels that are named before, and the logits are what they are
// elsewhere.
func TestLongPast(t *testing.T) {
	b := compiled(t, shaders.Q8)
	dev := &counting{played{cpu.New()}, map[string]bool{}}
	var logits [2][][]float32
	for i, d := range []gpu.Device{cpu.New(), dev} {
		r, err := Load(context.Background(), d, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := randomSequences(r, 100)[0]
		for _, n := range []int{99, 100} {
			out, err := r.forward(context.Background(), []feed{{copyOf(r, s, n), []int{n - 1}}}, want{logits: true})
			if err != nil {
				t.Fatal(err)
			}
			logits[i] = append(logits[i], out.logits...)
		}
		long := copyOf(r, s, 99)
		if _, err := r.forward(context.Background(), []feed{{long, []int{98}}}, want{}); err != nil {
			t.Fatal(err)
		}
		long.AppendTokens(s.Tokens()[99])
		out, err := r.forward(context.Background(), []feed{{long, []int{99}}}, want{logits: true})
		if err != nil {
			t.Fatal(err)
		}
		logits[i] = append(logits[i], out.logits...)
	}
	near(t, "a token after 99", logits[1][2:], logits[1][1:2])
	near(t, "where a CPU plays a GPU", logits[1], logits[0])
	kernels, err := Kernels(dev.Info(), b.Manifest(), shaders.F32, 1, 128)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"attention_part_software.vec4", "attention_merge"} {
		if !dev.compiled[name] || !slices.ContainsFunc(kernels, func(k *gpu.Kernel) bool { return k.Name == name }) {
			t.Errorf("%s was run: %v, and is to be among Kernels", name, dev.compiled[name])
		}
	}
}

// played is the CPU as a device that says it is a GPU which a CPU plays; what it runs are Go functions all the same.
type played struct{ gpu.Device }

func (d played) Info() gpu.Info {
	info := d.Device.Info()
	info.Features = gpu.Features{Subgroups: true, SubgroupMin: 8, SubgroupMax: 8}
	return info
}

func (d played) Compile(k *gpu.Kernel) (gpu.Pipeline, error) {
	same := *k
	same.Subgroups = false
	return d.Device.Compile(&same)
}

// counting notes what is compiled.
type counting struct {
	gpu.Device
	compiled map[string]bool
}

func (d *counting) Compile(k *gpu.Kernel) (gpu.Pipeline, error) {
	d.compiled[k.Name] = true
	return d.Device.Compile(k)
}
