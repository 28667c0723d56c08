// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"time"

	"fromage/gpu"
)

// counter is a device that counts what is asked of it.
type counter struct {
	gpu.Device
	dispatches, submits, reads, writes int
}

var _ gpu.Timer = (*counter)(nil)

func (c *counter) Submit(l *gpu.List) error {
	c.submits++
	c.dispatches += l.Dispatches()
	return c.Device.Submit(l)
}

func (c *counter) Read(b gpu.Buffer, offset int, dst []byte) error {
	c.reads++
	return c.Device.Read(b, offset, dst)
}

func (c *counter) Write(b gpu.Buffer, offset int, data []byte) error {
	c.writes++
	return c.Device.Write(b, offset, data)
}

// Time implements gpu.Timer where the device does.
func (c *counter) Time(l *gpu.List) ([]time.Duration, error) {
	if t, ok := c.Device.(gpu.Timer); ok {
		return t.Time(l)
	}
	return nil, errors.ErrUnsupported
}
