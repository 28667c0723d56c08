// SPDX-License-Identifier: Apache-2.0

package torchfile

import (
	"errors"
	"fmt"
)

const (
	// maxStack bounds the values on the stack. Picklers flush long lists every
	// thousand items, so that real files stay far below it.
	maxStack = 1 << 20
	// maxMarks bounds how deep containers may be nested while being built.
	maxMarks = 1 << 10
	// freeContainers is the number of containers any pickle may make; beyond it
	// each must be paid for by bytesPerContainer bytes of the pickle.
	freeContainers    = 1 << 12
	bytesPerContainer = 4
)

// The values on the stack are nil, bool, int64, longInt, float64, string, global,
// *blob, tuple, *list, *dict, *Tensor, *storage, *npDType and inert.
type (
	tuple []any
	list  struct{ items []any }
	// inert stands for a value that no tensor needs, named for errors.
	inert string
)

// dict keeps its items in order. Keys are str, int, float, bool or None.
type dict struct {
	items []item
	index map[any]int
}

type item struct{ key, value any }

func (d *dict) get(key any) (any, bool) {
	i, ok := d.index[key]
	if !ok {
		return nil, false
	}
	return d.items[i].value, true
}

func (d *dict) set(key, value any) error {
	switch key.(type) {
	case nil, bool, int64, float64, string:
	default:
		return fmt.Errorf("want a key that is a str or a number, have %s", describe(key))
	}
	if _, ok := d.index[key]; ok {
		return fmt.Errorf("key %.100q appears twice", fmt.Sprint(key))
	}
	if d.index == nil {
		d.index = map[any]int{}
	}
	d.index[key] = len(d.items)
	d.items = append(d.items, item{key, value})
	return nil
}

// describe names a value's kind for errors.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "bool"
	case int64, longInt:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case global:
		return fmt.Sprintf("global %.200s", v)
	case *blob:
		return "bytes"
	case tuple:
		return "tuple"
	case *list:
		return "list"
	case *dict:
		return "dict"
	case *Tensor:
		return "tensor"
	case *storage:
		return "storage"
	case *npDType:
		return "numpy.dtype"
	case inert:
		return string(v)
	}
	return "unknown value"
}

// machine evaluates one pickle to plain values. It calls nothing that the
// pickle names: see reduce for all that it understands.
type machine struct {
	reader
	// resolve gives the storage that a persistent id stands for.
	resolve func(pid tuple) (*storage, error)
	// nested says that the file being read is itself a value in a pickle.
	nested bool

	stack      []any
	marks      []int // stack heights
	wanted     map[uint64]bool
	memo       map[uint64]any
	puts       uint64
	containers int64
	decoded    int64 // bytes made from strings
}

// run evaluates the pickle at the reader's position and leaves the reader
// behind its STOP.
//
// It reads the pickle twice. Picklers memoise nearly everything and fetch nearly
// nothing, so the first pass notes which memo entries are fetched and the second
// keeps only those: a file of millions of small tensors then costs their
// descriptions alone.
func (m *machine) run() (any, error) {
	start := m.at
	if err := m.scan(); err != nil {
		return nil, err
	}
	m.at = start
	m.memo = map[uint64]any{}
	for {
		in, err := m.next(true)
		if err != nil {
			return nil, err
		}
		if in.code == opStop {
			v, err := m.pop()
			if err == nil && (len(m.stack) > 0 || len(m.marks) > 0) {
				err = fmt.Errorf("leaves %d values on the stack", len(m.stack))
			}
			if err != nil {
				return nil, in.fail(err)
			}
			return v, nil
		}
		if err := m.step(in); err != nil {
			return nil, in.fail(err)
		}
	}
}

// scan notes the memo entries that are fetched.
func (m *machine) scan() error {
	m.wanted = map[uint64]bool{}
	for {
		in, err := m.next(false)
		if err != nil {
			return err
		}
		switch in.code {
		case opBinGet, opLongBinGet:
			m.wanted[in.arg] = true
		case opStop:
			return nil
		}
	}
}

func (m *machine) step(in instruction) error {
	switch in.code {
	case opProto:
		if in.arg > 5 {
			return fmt.Errorf("want a protocol of at most 5, have %d", in.arg)
		}
		return nil
	case opFrame:
		if in.arg > uint64(m.size-m.at) {
			return fmt.Errorf("want at most the %d bytes that remain, have %d", m.size-m.at, in.arg)
		}
		return nil
	case opMark:
		if len(m.marks) == maxMarks {
			return fmt.Errorf("nests deeper than %d", maxMarks)
		}
		m.marks = append(m.marks, len(m.stack))
		return nil
	case opNone:
		return m.push(nil)
	case opNewTrue, opNewFalse:
		return m.push(in.code == opNewTrue)
	case opBinInt1, opBinInt2:
		return m.push(int64(in.arg))
	case opBinInt, opLong1, opBinFloat, opBinUnicode, opShortBinUnicode, opBinUnicode8,
		opBinBytes, opShortBinBytes, opBinBytes8, opByteArray8:
		return m.push(in.value)
	case opGlobal:
		return m.pushGlobal(in.value.(global))
	case opBinGet, opLongBinGet, opBinPut, opLongBinPut, opMemoize:
		return m.memoStep(in)
	case opEmptyList, opEmptyDict, opEmptyTuple, opTuple, opTuple1, opTuple2, opTuple3:
		return m.makeStep(in.code)
	case opAppend, opAppends, opSetItem, opSetItems:
		return m.fillStep(in.code)
	}
	return m.objectStep(in.code)
}

// memoStep does the opcodes that read and write the memo. Picklers number its
// entries in order, which MEMOIZE relies on and PUT must therefore obey.
func (m *machine) memoStep(in instruction) error {
	if in.code == opBinGet || in.code == opLongBinGet {
		v, ok := m.memo[in.arg]
		if !ok {
			return fmt.Errorf("memo entry %d is not set", in.arg)
		}
		return m.push(v)
	}
	if in.code != opMemoize && in.arg != m.puts {
		return fmt.Errorf("want the next memo entry, %d, have %d", m.puts, in.arg)
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	if m.wanted[m.puts] {
		m.memo[m.puts] = v
	}
	m.puts++
	return nil
}

// makeStep does the opcodes that make a container.
func (m *machine) makeStep(code byte) error {
	if err := m.pay(); err != nil {
		return err
	}
	switch code {
	case opEmptyList:
		return m.push(&list{})
	case opEmptyDict:
		return m.push(&dict{})
	case opEmptyTuple:
		return m.push(tuple(nil))
	case opTuple:
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.push(append(tuple(nil), items...))
	}
	items, err := m.popN(int(code-opTuple1) + 1)
	if err != nil {
		return err
	}
	return m.push(append(tuple(nil), items...))
}

// fillStep does the opcodes that put items in a container.
func (m *machine) fillStep(code byte) error {
	var items []any
	var err error
	switch code {
	case opAppend:
		items, err = m.popN(1)
	case opSetItem:
		items, err = m.popN(2)
	default:
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	target, err := m.top()
	if err != nil {
		return err
	}
	if code == opAppend || code == opAppends {
		l, ok := target.(*list)
		if !ok {
			return fmt.Errorf("want a list, have %s", describe(target))
		}
		l.items = append(l.items, items...)
		return nil
	}
	d, ok := target.(*dict)
	if !ok {
		return fmt.Errorf("want a dict, have %s", describe(target))
	}
	if len(items)%2 != 0 {
		return errors.New("a key has no value")
	}
	for i := 0; i < len(items); i += 2 {
		if err := d.set(items[i], items[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// objectStep does the opcodes that, in Python, would import and call.
func (m *machine) objectStep(code byte) error {
	if code == opBinPersID {
		v, err := m.pop()
		if err != nil {
			return err
		}
		pid, ok := v.(tuple)
		if !ok || m.resolve == nil {
			return fmt.Errorf("persistent id %s means nothing here", describe(v))
		}
		s, err := m.resolve(pid)
		if err != nil {
			return err
		}
		return m.push(s)
	}
	two, err := m.popN(2)
	if err != nil {
		return err
	}
	a, b := two[0], two[1]
	if code == opStackGlobal {
		module, ok1 := a.(string)
		name, ok2 := b.(string)
		if !ok1 || !ok2 {
			return fmt.Errorf("want two strings, have %s and %s", describe(a), describe(b))
		}
		return m.pushGlobal(global{module, name})
	}
	if code == opBuild {
		if err := build(a, b); err != nil {
			return fmt.Errorf("%s: %w", describe(a), err)
		}
		return m.push(a)
	}
	g, ok := a.(global)
	if !ok {
		return fmt.Errorf("want a global, have %s", describe(a))
	}
	args, ok := b.(tuple)
	if !ok {
		return fmt.Errorf("%s: want a tuple of arguments, have %s", g, describe(b))
	}
	if err := m.pay(); err != nil {
		return err
	}
	var v any
	if code == opReduce {
		v, err = m.reduce(g, args)
	} else {
		v, err = newObject(g, args)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", g, err)
	}
	return m.push(v)
}

func (m *machine) pushGlobal(g global) error {
	if !allowed[g] {
		return fmt.Errorf("global %.200s is not allowed", g)
	}
	return m.push(g)
}

// pay accounts for one container.
func (m *machine) pay() error {
	m.containers++
	if m.containers > freeContainers+m.size/bytesPerContainer {
		return fmt.Errorf("makes more than the %d containers that %d bytes justify", m.containers-1, m.size)
	}
	return nil
}

func (m *machine) push(v any) error {
	if len(m.stack) == maxStack {
		return fmt.Errorf("want at most %d values on the stack", maxStack)
	}
	m.stack = append(m.stack, v)
	return nil
}

// floor is the height below which values belong to an outer mark.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

func (m *machine) top() (any, error) {
	if len(m.stack) == m.floor() {
		return nil, errors.New("finds the stack empty")
	}
	return m.stack[len(m.stack)-1], nil
}

func (m *machine) pop() (any, error) {
	v, err := m.top()
	if err == nil {
		m.stack = m.stack[:len(m.stack)-1]
	}
	return v, err
}

// popN removes the last n values. They are valid until the next push.
func (m *machine) popN(n int) ([]any, error) {
	k := len(m.stack) - n
	if k < m.floor() {
		return nil, errors.New("finds too few values on the stack")
	}
	items := m.stack[k:]
	m.stack = m.stack[:k]
	return items, nil
}

// popMark removes the last mark and the values above it. They are valid until
// the next push.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, errors.New("finds no mark")
	}
	k := m.floor()
	m.marks = m.marks[:len(m.marks)-1]
	items := m.stack[k:]
	m.stack = m.stack[:k]
	return items, nil
}
