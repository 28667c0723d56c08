// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fromage/vision"
)

func rows(values map[string][]float64) []Row {
	var all []Row
	for name, list := range values {
		for i, v := range list {
			for len(all) <= i {
				all = append(all, Row{Step: 10 * len(all), Scalars: map[string]float64{}})
			}
			all[i].Scalars[name] = v
		}
	}
	return all
}

func TestCharts(t *testing.T) {
	nan := math.NaN()
	got := charts(rows(map[string][]float64{
		"train/loss": {4, 2, nan, 2, 3}, "val/loss": {3, 3}, "metrics/speed": {1}, "lr": {0, 0}, "val/top1_acc": {1, 2}, "train/broken": {nan, math.Inf(1)},
	}))
	var names []string
	for _, c := range got {
		names = append(names, c.Name)
	}
	if want := []string{"loss", "top1_acc", "lr", "speed"}; !reflect.DeepEqual(names, want) {
		t.Fatalf("charts %q, want %q", names, want)
	}
	// Steps 0 … 40 lie at 46 … 352; values 2 … 4, with a twentieth of their range on either side, at 176 … 8.
	loss := got[0]
	want := []line{
		{"train", "M46.0 15.6L122.5 168.4M275.5 168.4L352.0 92.0", 1, "3", []dot{
			{"46.0", "15.6", "step 0: 4"}, {"122.5", "168.4", "step 10: 2"}, {"275.5", "168.4", "step 30: 2"}, {"352.0", "92.0", "step 40: 3"}}},
		{"val", "M46.0 92.0L122.5 92.0", 2, "3", []dot{{"46.0", "92.0", "step 0: 3"}, {"122.5", "92.0", "step 10: 3"}}},
	}
	if !reflect.DeepEqual(loss.Lines, want) {
		t.Errorf("lines are\n%v, want\n%v", loss.Lines, want)
	}
	if want := []tick{{"46.0", "0"}, {"122.5", "10"}, {"199.0", "20"}, {"275.5", "30"}, {"352.0", "40"}}; !reflect.DeepEqual(loss.XTicks, want) {
		t.Errorf("ticks over steps are %v, want %v", loss.XTicks, want)
	}
	if want := []tick{{"168.4", "2"}, {"130.2", "2.5"}, {"92.0", "3"}, {"53.8", "3.5"}, {"15.6", "4"}}; !reflect.DeepEqual(loss.YTicks, want) {
		t.Errorf("ticks of values are %v, want %v", loss.YTicks, want)
	}
}

func TestTicks(t *testing.T) {
	cases := []struct {
		low, high float64
		want      []float64
	}{
		{0, 1, []float64{0, 0.5, 1}},
		{-1, 1, []float64{-1, -0.5, 0, 0.5, 1}},
		{0, 20000, []float64{0, 5000, 10000, 15000, 20000}},
		{0.9, 1.1, []float64{0.9, 0.95, 1, 1.05, 1.1}},
		{3e-4, 3.2e-4, []float64{3e-4, 3.05e-4, 3.1e-4, 3.15e-4, 3.2e-4}},
		{1e20, math.Nextafter(1e20, math.Inf(1)), []float64{1e20}},
		{-1e300, 1e300, []float64{-1e300, -5e299, 0, 5e299, 1e300}},
	}
	for _, c := range cases {
		got := span{c.low, c.high}.ticks()
		same := len(got) == len(c.want) || c.low == 1e20 // there, floats are too coarse for anything but an end
		for i := range c.want {
			same = same && len(got) > i && math.Abs(got[i]-c.want[i]) <= 1e-9*max(math.Abs(c.low), math.Abs(c.high))
		}
		if !same {
			t.Errorf("ticks(%g, %g) = %v, want %v", c.low, c.high, got, c.want)
		}
	}
}

func TestThin(t *testing.T) {
	var points []point
	for i := range 2*maxPoints + 1 {
		points = append(points, point{float64(i), float64(i % 3)})
	}
	got, last := thin(points)
	if len(got) != (2*maxPoints+1+2)/3 || last != 0 {
		t.Fatalf("thin made %d points, last %v", len(got), last)
	}
	for i, p := range got {
		if math.Abs(p.x-float64(3*i+1)) > 1e-9 || math.Abs(p.y-1) > 1e-9 {
			// The last group is shorter.
			if i < len(got)-1 {
				t.Fatalf("point %d is %v, want (%d, 1)", i, p, 3*i+1)
			}
		}
	}
	if got, _ := thin(points[:maxPoints]); len(got) != maxPoints {
		t.Errorf("thin of %d points made %d", maxPoints, len(got))
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", -20000: "-20000", 1.6789: "1.679", 16.12: "16.12", 163.44: "163.4", 9999.9: "10000", 0.0123456: "0.0123", 0.001: "0.0010",
		3e-4: "0.0003", 1e-8: "1e-08", 123456.7: "1.23e+05", math.Inf(-1): "-Inf",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestTables(t *testing.T) {
	all := []Row{
		{0, map[string]float64{"train/loss": 5}},
		{100, map[string]float64{"train/loss": 3, "val/loss": 4, "val/acc": 0.25}},
		{200, map[string]float64{"train/loss": math.NaN(), "val/loss": 3.5}},
	}
	want := table{[]string{"acc", "loss"}, []tableRow{{100, []string{"0.2500", "4"}}, {200, []string{"", "3.500"}}}}
	if got := evaluations(all); !reflect.DeepEqual(got, want) {
		t.Errorf("evaluations = %v, want %v", got, want)
	}
	got := extremes(all)
	if len(got) != 3 || got[0].Name != "train/loss" || got[0].First != 5 || !math.IsNaN(got[0].Last) || got[0].Lowest != 3 || got[0].LowestAt != 100 || got[0].HighestAt != 0 {
		t.Errorf("extremes = %+v", got)
	}
}

// picture makes a PNG that compresses badly.
func picture(t *testing.T, width, height int) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			m.Set(x, y, color.RGBA{uint8(r.Uint32()), uint8(x), uint8(y), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSource(t *testing.T) {
	little, large := picture(t, 20, 10), picture(t, 600, 300)
	if got, want := string(Source(Picture{Data: little})), "data:image/png;base64,"+base64.StdEncoding.EncodeToString(little); got != want {
		t.Errorf("a small picture is %.60s, want its own bytes", got)
	}
	encoded, ok := strings.CutPrefix(string(Source(Picture{Data: large})), "data:image/jpeg;base64,")
	data, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(data) >= len(large) {
		t.Fatalf("a large picture: JPEG %v, %v, %d bytes of %d", ok, err, len(data), len(large))
	}
	if pic, _, err := vision.Decode(data, vision.Limits{}); err != nil || pic.Width != 256 || pic.Height != 128 {
		t.Errorf("a large picture becomes %v, %v, want 256 by 128", pic, err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "svg": []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), "html": []byte("<html><script>"), "torn": large[:60<<10],
	} {
		if got := Source(Picture{Data: data}); got != "" {
			t.Errorf("%s: source = %.60s, want none", name, got)
		}
	}
}

// example is a run with everything in it.
func example(t *testing.T) Run {
	r := Run{Title: "mine <b>", Facts: []Fact{{"batch", "180"}}}
	for step := 0; step <= 1000; step += 10 {
		row := Row{step, map[string]float64{"train/loss": 3 + 5*math.Exp(-float64(step)/200), "train/lr": 3e-4}}
		if step%100 == 0 {
			row.Scalars["val/loss"] = 3.2 + 5*math.Exp(-float64(step)/200)
		}
		r.Rows = append(r.Rows, row)
	}
	found := []Found{{Picture{"a.png", picture(t, 8, 8)}, 12.5, true}, {Picture{"gone.png", nil}, 3, false}}
	r.Samples = []Sample{{Picture{`b".png`, picture(t, 8, 8)}, "a <script>cat</script>", "a dog", found}}
	return r
}

func TestWrite(t *testing.T) {
	var b, again bytes.Buffer
	for _, w := range []*bytes.Buffer{&b, &again} {
		if err := Write(w, example(t)); err != nil {
			t.Fatal(err)
		}
	}
	page := b.String()
	if page != again.String() {
		t.Error("two pages of the same run differ")
	}
	for text, times := range map[string]int{
		"<title>mine &lt;b&gt;</title>": 1, "<dd>180</dd>": 1, "<svg ": 2, "<path ": 3, "a &lt;script&gt;cat": 2, "a dog": 1, "<img ": 2, "gone.png": 1, "12.50 ✓": 1,
		"<script": 0, "http": 1, "src=\"data:image/png;base64,": 2, "Zgotmpl": 0, "NaN": 0, "<th>train/loss</th><td>8</td>": 1,
	} {
		if got := strings.Count(page, text); got != times {
			t.Errorf("page has %q %d times, want %d", text, got, times)
		}
	}
	if err := Write(&b, Run{}); err != nil {
		t.Errorf("Write of nothing = %v", err)
	}
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.html")
	for range 2 {
		if err := Save(path, example(t)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.HasSuffix(data, []byte("</html>\n")) {
		t.Errorf("file ends with %.40q, %v", data[max(0, len(data)-40):], err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("folder holds %v, want the page alone", entries)
	}
	if err := Save(filepath.Join(dir, "none", "x"), Run{}); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("Save into no folder = %v, want an error that names it", err)
	}
}
