// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"fromage/compiler"
	"fromage/compiler/checkpoint"
	"fromage/index"
	"fromage/runner"
)

// expectedJSON is the part of expected.json that is compared.
type expectedJSON struct {
	ModelArgs struct {
		OPT  string `json:"opt_version"`
		CLIP string `json:"visual_encoder"`
	} `json:"model_args"`
	Optimizer optimizerJSON `json:"optimizer"`
	Steps     []stepJSON    `json:"steps"`
	Inference []struct {
		Prompt        []json.RawMessage `json:"prompt"`
		Args          arguments         `json:"args"`
		Output        []json.RawMessage `json:"output"`
		LogLikelihood float64           `json:"log_likelihood"`
	} `json:"inference"`
}

// arguments are those of generate_for_images_and_texts and of generate.
type arguments struct {
	NumWords       int      `json:"num_words"`
	RetScaleFactor *float64 `json:"ret_scale_factor"`
	MinWordTokens  int      `json:"min_word_tokens"`
	MaxNumRets     int      `json:"max_num_rets"`
	MaxImgPerRet   int      `json:"max_img_per_ret"`
}

func (a arguments) options() runner.Options {
	o := runner.DefaultOptions()
	o.NumWords, o.MinWordTokens, o.IgnoreEOS = a.NumWords, a.MinWordTokens, true
	if a.RetScaleFactor != nil {
		o.RetScaleFactor = *a.RetScaleFactor
	}
	o.MaxNumRets, o.MaxImgPerRet = max(1, a.MaxNumRets), max(1, a.MaxImgPerRet)
	return o
}

// fromage verifies the whole system: training step by step, then, with what the reference learnt, embeddings of the index, generation, and the prompts of expected.json.
func (v *verification) fromage() error {
	raw, err := os.ReadFile(filepath.Join(v.dir, "expected.json"))
	if err != nil {
		return err
	}
	var want expectedJSON
	generate := map[string]json.RawMessage{}
	if err := errors.Join(json.Unmarshal(raw, &want), json.Unmarshal(raw, &generate)); err != nil {
		return fmt.Errorf("verify: %s: %w", filepath.Join(v.dir, "expected.json"), err)
	}
	if err := v.training(want); err != nil {
		return err
	}
	done, err := v.load(compiler.Options{
		OPT: filepath.Join(v.dir, want.ModelArgs.OPT), CLIP: filepath.Join(v.dir, want.ModelArgs.CLIP),
		Heads: filepath.Join(v.dir, "fromage_model_pretrained_ckpt.pth.tar"),
	})
	if err != nil {
		return err
	}
	defer done()
	pixels, err := v.pictures("index.pixel_values")
	if err != nil {
		return err
	}
	images, err := v.r.Embed(v.ctx, pixels, nil)
	if err != nil {
		return err
	}
	var embeddings []float32
	for _, image := range images {
		embeddings = append(embeddings, image.Retrieval...)
	}
	if err := v.tensor("index.embeddings_raw", embeddings); err != nil {
		return err
	}
	for k := 0; v.want.has(fmt.Sprintf("generate%d.inputs_embeds", k)); k++ {
		var a arguments
		if err := json.Unmarshal(generate[fmt.Sprintf("generate%d", k)], &a); err != nil {
			return fmt.Errorf("verify: expected.json: generate%d: %w", k, err)
		}
		if err := v.generate(fmt.Sprintf("generate%d.", k), a); err != nil {
			return err
		}
	}
	return v.inference(want, images)
}

// generate runs FromageModel.generate from given embeddings and compares tokens, logits and normalised text embeddings. The reference lists the logits
// after the [RET] rule, which it applies in place.
func (v *verification) generate(name string, a arguments) error {
	rows, err := v.want.rows(name + "inputs_embeds")
	if err != nil {
		return err
	}
	ids, err := v.want.ints(name + "output_ids")
	if err != nil {
		return err
	}
	want := ids[0]
	s := v.r.NewSequence()
	defer s.Close()
	for _, row := range rows {
		s.AppendTokens(runner.Token{Visual: row})
	}
	sampler := runner.NewSampler(a.options(), v.r.RET())
	var got []int
	var logits, embeddings [][]float32
	for i := range want {
		out, err := v.r.Outputs(v.ctx, s)
		if err != nil {
			return err
		}
		for _, e := range out.Retrieval {
			embeddings = append(embeddings, runner.Normalised(e))
		}
		last := out.Logits[len(out.Logits)-1]
		got = append(got, sampler.Next(last, i)) // changes last
		logits = append(logits, last)
		s.AppendTokens(runner.Token{ID: got[i]})
	}
	v.ids(name+"output_ids", got, want, logits)
	if err := v.tensor(name+"logits", flat(logits)); err != nil {
		return err
	}
	return v.tensor(name+"output_embeddings", flat(embeddings))
}

// pickled is the release's index of image embeddings as a search.
type pickled struct {
	paths []string
	index *index.Index
}

// Search implements runner.Searcher.
func (p *pickled) Search(e []float32, k int, seen []int) ([]index.Hit, error) {
	return p.index.Search(e, k, index.Options{Seen: seen})
}

func (v *verification) pickled() (*pickled, error) {
	f, err := checkpoint.OpenEmbeddings(filepath.Join(v.dir, "cc3m_embeddings.pkl"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	flat := make([]float32, len(f.Paths)*f.D)
	if err := f.ReadRows(0, len(f.Paths), flat); err != nil {
		return nil, err
	}
	if err := v.tensor("index.embeddings_raw", flat); err != nil {
		return nil, err
	}
	x, err := index.New(index.Header{D: f.D, DType: index.F32})
	if err != nil {
		return nil, err
	}
	rows := make([][]float32, len(f.Paths))
	for i := range rows {
		rows[i] = flat[i*f.D : (i+1)*f.D]
	}
	return &pickled{paths: f.Paths, index: x}, x.ImportPairs(f.Paths, rows)
}

// inference runs the prompts of expected.json and compares texts, retrieved pictures and log-likelihoods.
func (v *verification) inference(want expectedJSON, images []runner.Image) error {
	search, err := v.pickled()
	if err != nil {
		return err
	}
	for i, c := range want.Inference {
		name := fmt.Sprintf("inference %d", i)
		prompt, err := parsePrompt(c.Prompt, images)
		if err != nil {
			return fmt.Errorf("verify: expected.json: %s: %w", name, err)
		}
		output, err := parseOutput(c.Output)
		if err != nil {
			return fmt.Errorf("verify: expected.json: %s: %w", name, err)
		}
		answer, err := v.answer(prompt, c.Args.options(), search)
		if err != nil {
			return err
		}
		v.text(name, search.describe(answer), output)
		scores, err := v.r.Score(v.ctx, prompt)
		if err != nil {
			return err
		}
		v.add(compare(name+" log-likelihood", []float32{float32(scores[0].Mean)}, []float32{float32(c.LogLikelihood)}, 1e-4))
	}
	return nil
}

func (v *verification) answer(prompt []runner.Part, opt runner.Options, search runner.Searcher) (*runner.Answer, error) {
	if opt.NumWords == 0 {
		return v.r.Retrieve(v.ctx, prompt, runner.RetrieveOptions{MaxNumRets: opt.MaxNumRets, MaxImgPerRet: opt.MaxImgPerRet, ReferencePositions: true}, search)
	}
	s := v.r.NewSequence()
	defer s.Close()
	if err := s.Append(prompt...); err != nil {
		return nil, err
	}
	return s.Generate(v.ctx, opt, search, nil)
}

func parsePrompt(parts []json.RawMessage, images []runner.Image) ([]runner.Part, error) {
	var prompt []runner.Part
	for _, raw := range parts {
		var text string
		if json.Unmarshal(raw, &text) == nil {
			prompt = append(prompt, runner.Part{Text: text})
			continue
		}
		var picture struct{ Image *int }
		if err := json.Unmarshal(raw, &picture); err != nil {
			return nil, err
		}
		if picture.Image == nil || *picture.Image < 0 || *picture.Image >= len(images) {
			return nil, fmt.Errorf("want a text or {\"image\": 0 … %d}, have %s", len(images)-1, raw)
		}
		prompt = append(prompt, runner.Part{Image: &images[*picture.Image]})
	}
	return prompt, nil
}

// parseOutput writes the reference's list of texts and lists of pictures as one line.
func parseOutput(parts []json.RawMessage) (string, error) {
	var out []string
	for _, raw := range parts {
		var text string
		var paths []string
		if err := json.Unmarshal(raw, &text); err == nil {
			out = append(out, fmt.Sprintf("%q", text))
		} else if err := json.Unmarshal(raw, &paths); err == nil {
			out = append(out, strings.Join(paths, " "))
		} else {
			return "", err
		}
	}
	return strings.Join(out, " | "), nil
}

func (p *pickled) describe(a *runner.Answer) string {
	var out []string
	for _, piece := range a.Pieces {
		out = append(out, fmt.Sprintf("%q", piece.String()))
		if !piece.RET {
			continue
		}
		var paths []string
		for _, h := range piece.Images {
			paths = append(paths, p.paths[h.Row])
		}
		out = append(out, strings.Join(paths, " "))
	}
	return strings.Join(out, " | ")
}
