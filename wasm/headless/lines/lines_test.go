// SPDX-License-Identifier: Apache-2.0

package lines

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"fromage/runner"
)

func TestParse(t *testing.T) {
	usual := runner.DefaultOptions()
	with := func(change func(*runner.Options)) *runner.Options {
		o := usual
		change(&o)
		return &o
	}
	for _, c := range []struct {
		line string
		want Request
	}{
		{`{"prompt":["a cat"]}`, Request{Prompt: []Item{{Text: "a cat"}}, Options: &usual}},
		{`{"prompt":[{"image":"cat.png"},{"text":" is"},{"bytes":"AQID"}]}`,
			Request{Prompt: []Item{{Image: "cat.png"}, {Text: " is"}, {Bytes: []byte{1, 2, 3}}}, Options: &usual}},
		{`{"id":7,"prompt":["x [RET]"]}`, Request{ID: json.RawMessage("7"), Prompt: []Item{{Text: "x [RET]"}}, Options: with(func(o *runner.Options) { o.NumWords = 0 })}},
		{`{"id":{"a":[1]},"prompt":["x [RET]"],"num_words":5,"seed":3,"temperature":0.5,"top_p":0.9}`,
			Request{ID: json.RawMessage(`{"a":[1]}`), Prompt: []Item{{Text: "x [RET]"}}, Options: with(func(o *runner.Options) {
				o.NumWords, o.Seed, o.Temperature, o.TopP = 5, 3, 0.5, 0.9
			})}},
		{`{"prompt":["[RET]"],"max_img_per_ret":4}`, Request{Prompt: []Item{{Text: "[RET]"}}, Options: with(func(o *runner.Options) { o.NumWords, o.MaxImgPerRet = 0, 4 })}},
	} {
		got, err := Parse([]byte(c.line))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("Parse(%s) = %+v with %+v, %v, want %+v with %+v", c.line, got, got.Options, err, c.want, c.want.Options)
		}
		// What a program marshals is what the guest reads.
		data, err := json.Marshal(c.want)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(data); err != nil || !reflect.DeepEqual(again, c.want) {
			t.Errorf("Parse(%s) = %+v, %v, want %+v", data, again, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ line, part, id string }{
		{``, "EOF", ""},
		{`garbage`, "invalid character", ""},
		{`{"prompt":["a"]} {}`, "after it", ""},
		{`{"id":3}`, "want a prompt", "3"},
		{`{"id":"x","prompt":[]}`, "want a prompt", `"x"`},
		{`{"id":3,"prompt":"a"}`, "cannot unmarshal", "3"},
		{`{"id":3,"prompt":[7]}`, "cannot unmarshal", "3"},
		{`{"prompt":["a"],"words":3}`, `unknown field "words"`, ""},
		{`{"prompt":[{"picture":"cat.png"}]}`, `unknown field "picture"`, ""},
		{`{"prompt":[{"text":"a","image":"cat.png"}]}`, "have both", ""},
		{`{"prompt":[{"bytes":"!"}]}`, "base64", ""},
		{`{"prompt":["a"],"num_words":0}`, "want a [RET]", ""},
		{`{"prompt":["a"],"num_words":-2}`, "num-words", ""},
		{`{"prompt":["a"],"temperature":-1}`, "temperature", ""},
		{`{"prompt":["a"],"top_p":0.5}`, "top-p", ""},
		{`{"prompt":["a"],"seed":-1}`, "seed", ""},
	} {
		q, err := Parse([]byte(c.line))
		if err == nil || !strings.Contains(err.Error(), c.part) || string(q.ID) != c.id {
			t.Errorf("Parse(%s) = %v with id %s, want an error that has %q and id %s", c.line, err, q.ID, c.part, c.id)
		}
	}
}

func TestLineJSON(t *testing.T) {
	token, none := int32(7), []Picture{}
	for _, c := range []struct {
		line Line
		want string
	}{
		{Line{Token: &token, Text: " cat"}, `{"token":7,"text":" cat"}`},
		{Line{ID: json.RawMessage("1"), Token: &token}, `{"id":1,"token":7}`},
		{Line{Pictures: &none}, `{"pictures":[]}`},
		{Line{Pictures: &[]Picture{{Path: "a.webp", Score: 2, Row: 3}}}, `{"pictures":[{"path":"a.webp","score":2,"row":3}]}`},
		{Line{Done: &Done{"eos", 0}}, `{"done":{"stop":"eos","tokens":0}}`},
		{Line{Error: "no"}, `{"error":"no"}`},
	} {
		if got, err := json.Marshal(c.line); err != nil || string(got) != c.want {
			t.Errorf("Marshal(%+v) = %s, %v, want %s", c.line, got, err, c.want)
		}
		if want := c.line.Done != nil || c.line.Error != ""; c.line.Last() != want {
			t.Errorf("%s: Last() = %v, want %v", c.want, c.line.Last(), want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":1,"prompt":[{"image":"cat.png"},"text [RET]",{"bytes":"AQID"}],"num_words":3,"top_p":0.5,"temperature":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := Parse(line)
		if err != nil {
			return
		}
		if len(q.Prompt) == 0 || q.Options == nil || q.Check() != nil {
			t.Fatalf("Parse(%q) = %+v with %+v", line, q, q.Options)
		}
		data, err := json.Marshal(q)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := Parse(data); err != nil {
			t.Fatalf("%q became %q, which is refused: %v", line, data, err)
		}
	})
}
