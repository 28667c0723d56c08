// SPDX-License-Identifier: Apache-2.0

//go:build cgo && !js && !wasip1

package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"fromage/gpu"
)

// timesMost is how many dispatches one set of times has room for: WebGPU allows 4096 times.
const timesMost = 2048

// clock gives each dispatch of a list a pass of its own, whose begin and end the driver notes.
type clock struct {
	sets []*wQuerySet // timesMost dispatches each
	n    int          // passes begun
}

func (c *clock) pass(e *wEncoder) *wPass {
	c.n++
	return timedPass(e, c.sets[(c.n-1)/timesMost], (c.n-1)%timesMost*2)
}

// Time implements gpu.Timer.
func (d *Device) Time(l *gpu.List) ([]time.Duration, error) {
	if err := d.lock(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	if !d.clocked {
		return nil, fmt.Errorf("gpu/native: %s has no clock for dispatches: %w", d.info.Adapter, errors.ErrUnsupported)
	}
	if err := d.handles.CheckList(l); err != nil || l.Dispatches() == 0 {
		return nil, err
	}
	if err := d.prepare(l); err != nil {
		return nil, err
	}
	c, n := &clock{}, l.Dispatches()
	defer func() {
		for _, set := range c.sets {
			set.Release()
		}
	}()
	for left := n; left > 0; left -= timesMost {
		set, err := createTimes(d.device, 2*min(left, timesMost))
		if err != nil {
			return nil, d.failed("time", "list", err)
		}
		c.sets = append(c.sets, set)
	}
	times, err := d.newBuffer("times", 16*n, usageTimes)
	if err != nil {
		return nil, err
	}
	defer times.Release()
	err = d.run("time", "list", func(e *wEncoder) error {
		if err := d.encode(e, l, c); err != nil {
			return err
		}
		for i, set := range c.sets {
			if err := resolveTimes(e, set, 0, uint32(2*min(n-i*timesMost, timesMost)), times, uint64(16*i*timesMost)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	data := make([]byte, 16*n)
	if err := d.read(times, "times", 0, data); err != nil {
		return nil, err
	}
	took := make([]time.Duration, n)
	for i := range took {
		began, ended := binary.LittleEndian.Uint64(data[16*i:]), binary.LittleEndian.Uint64(data[16*i+8:])
		if ended > began { // some drivers reset their clock
			took[i] = time.Duration(float64(ended-began) * tick(d.queue))
		}
	}
	return took, nil
}
