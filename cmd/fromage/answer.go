// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/pflag"

	"fromage/index"
	"fromage/runner"
)

// picture is a retrieved picture with what the index knows of it.
type picture struct {
	Path    string  `json:"path"`
	Caption string  `json:"caption,omitempty"`
	Licence string  `json:"licence,omitempty"`
	Score   float32 `json:"score"` // exp(logit_scale) · cosine
	Row     int     `json:"row"`
}

// piece is a part of an answer: text, then the pictures of the [RET] after it.
type piece struct {
	Text     string    `json:"text"`
	RET      bool      `json:"ret"`
	Pictures []picture `json:"pictures,omitempty"`
}

// exchange is a prompt and what the model answered.
type exchange struct {
	Title  string  `json:"title,omitempty"`
	Prompt []item  `json:"prompt"`
	Answer []piece `json:"answer"`
	Stop   string  `json:"stop,omitempty"`   // why the answer ended: see runner.Answer
	Tokens int     `json:"tokens,omitempty"` // generated
}

// searcher is the album's search; nil for a nil album.
func (x *album) searcher() runner.Searcher {
	if x == nil {
		return nil
	}
	return x.search
}

// describe looks up what is known about hits.
func (x *album) describe(hits []index.Hit) ([]picture, error) {
	var out []picture
	for _, h := range hits {
		m, err := x.Row(h.Row)
		if err != nil {
			return nil, err
		}
		p := picture{m.Path, m.Caption, m.Licence, h.Score, h.Row}
		if x.embedded {
			p.Path = galleryPrefix + p.Path
		}
		out = append(out, p)
	}
	return out, nil
}

// pieces makes an answer ready to be shown.
func (x *album) pieces(answer []runner.Piece) ([]piece, error) {
	var out []piece
	for _, p := range answer {
		shown := piece{Text: p.Text, RET: p.RET}
		if x != nil {
			var err error
			if shown.Pictures, err = x.describe(p.Images); err != nil {
				return nil, err
			}
		}
		out = append(out, shown)
	}
	return out, nil
}

// String is a line about the picture.
func (p picture) String() string {
	s := fmt.Sprintf("%s  %.2f", p.Path, p.Score)
	if p.Caption != "" {
		s += "  " + p.Caption
	}
	if p.Licence != "" {
		s += "  (" + p.Licence + ")"
	}
	return printable(s)
}

// printable replaces control characters, which a terminal would obey, in what an index or a model says.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// writePictures lists the pictures of a piece, or says that there are none.
func writePictures(w io.Writer, p piece) {
	if p.RET && len(p.Pictures) == 0 {
		fmt.Fprintln(w, "  [RET]")
	}
	for i, pic := range p.Pictures {
		fmt.Fprintf(w, "  [%d] %s\n", i+1, pic)
	}
}

// stream writes an answer as it is made.
type stream struct {
	w     io.Writer
	album *album
	begun bool // the line has text
	err   error
}

func (s *stream) emit(e runner.Event) {
	text := e.Text
	if !s.begun {
		text = strings.TrimLeft(text, " \n")
	}
	if text != "" {
		fmt.Fprint(s.w, printable(text))
		s.begun = true
	}
	if e.Piece == nil {
		return
	}
	s.endLine()
	shown, err := s.album.pieces([]runner.Piece{*e.Piece})
	if err != nil {
		s.err = err
		return
	}
	writePictures(s.w, shown[0])
}

func (s *stream) endLine() {
	if s.begun {
		fmt.Fprintln(s.w)
	}
	s.begun = false
}

// optionFlags adds the sampling flags, named as the reference's arguments.
func optionFlags(flags *pflag.FlagSet, o *runner.Options) {
	flags.IntVar(&o.NumWords, "num-words", o.NumWords, "most tokens to generate")
	flags.Float64Var(&o.RetScaleFactor, "ret-scale-factor", o.RetScaleFactor, "factor on the logit of [RET]: above 1 pictures are returned more eagerly")
	flags.IntVar(&o.MinWordTokens, "min-word-tokens", o.MinWordTokens, "tokens before [RET] is allowed")
	flags.Float64Var(&o.Temperature, "temperature", o.Temperature, "0 takes the most likely token, above it tokens are sampled")
	flags.Float64Var(&o.TopP, "top-p", o.TopP, "sample from the most likely tokens that make up this probability")
	flags.IntVar(&o.MaxNumRets, "max-num-rets", o.MaxNumRets, "most [RET]s to answer with pictures")
	flags.IntVar(&o.MaxImgPerRet, "max-img-per-ret", o.MaxImgPerRet, "pictures for each [RET]")
	flags.Uint64Var(&o.Seed, "seed", o.Seed, "of the sampling")
}
