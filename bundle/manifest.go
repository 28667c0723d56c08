// SPDX-License-Identifier: Apache-2.0

// Package bundle is the file that a compiled model is: a manifest, and blobs of bytes that are ready for a device, each named by its SHA-256.
//
// What enters is a file's bytes, trusted in nothing; what leaves is a checked Manifest and blobs whose every chunk was hashed before it is handed on.
// The package refuses to know checkpoints, devices and what a model computes beyond package plan's data.
//
// # The file
//
// All numbers are little-endian. A file is a header, blobs, the manifest, and nothing else:
//
//	offset  bytes
//	     0      8  magic: "FROMAGE" and a zero byte
//	     8      4  version, u32: 1
//	    12      4  zero
//	    16      8  manifest offset, u64: a multiple of 64
//	    24      8  manifest size, u64, at most MaxManifest; the file ends where the manifest does
//	    32     32  SHA-256 of the manifest's bytes
//	    64      …  the first blob
//	     …      …  each further blob at the next multiple of 64 after the end of the one before; zeros between
//	     …      …  the manifest at the next multiple of 64 after the last blob: JSON, see Manifest
//
// Every byte is thus fixed or hashed: the manifest by the header, a blob's chunks by the manifest, and the rest by this table. Blobs with equal bytes
// are stored once. Equal contents in equal order make equal files: there is no time, name or machine in them.
package bundle

import (
	"fromage/plan"
	"fromage/shaders"
)

// Manifest says everything about a bundle but its weights' values.
type Manifest struct {
	// Name is for people: which checkpoints it was compiled from.
	Name     string            `json:"name"`
	DType    shaders.Format    `json:"dtype"`    // the format asked for; single tensors may be in a larger one
	Settings Settings          `json:"settings"` // what a runner has to know besides the programs
	Model    plan.Model        `json:"model"`
	Tensors  []Tensor          `json:"tensors"`         // one for each weight of Model, in its order
	Files    map[string]Blob   `json:"files"`           // small files a runner needs: FileTokenizer, FilePreprocessor
	Sources  map[string]string `json:"sources"`         // file name → SHA-256 of the configurations compiled from
	Notes    map[string]string `json:"notes,omitempty"` // free text: licence, credits
}

// Names in Manifest.Files.
const (
	FileTokenizer    = "tokenizer.bin"            // tokenizer.Tokenizer's binary form, added tokens included
	FilePreprocessor = "preprocessor_config.json" // CLIP's, as in the checkpoint
	// One of these two where there is a text tower: its tokenizer is either CLIP's own kind, or OPT's.
	FileTextTokenizer    = "text_tokenizer.json" // as package tokenizer/clip reads it
	FileTextTokenizerBPE = "text_tokenizer.bin"  // tokenizer.Tokenizer's binary form
)

// Settings are the numbers that a runner needs to make token tables and read results. Those of a part that the bundle lacks are 0.
type Settings struct {
	Vocabulary   int    `json:"vocabulary"`            // V: rows of the logits; numbers from V on are rows of the visual embeddings
	EmbedDim     int    `json:"embed_dim"`             // E
	HiddenDim    int    `json:"hidden_dim"`            // D
	Layers       int    `json:"layers"`                // L
	MaxPositions int    `json:"max_positions"`         // most tokens in a sequence
	VisionDim    int    `json:"vision_dim"`            // Dv
	ImageSize    int    `json:"image_size"`            // S: pixels along each side
	ImageTokens  int    `json:"image_tokens"`          // N: tokens of one picture in program vision
	VisualTokens int    `json:"visual_tokens"`         // k: rows that a picture takes in a prompt
	SharedDim    int    `json:"shared_dim"`            // of retrieval embeddings
	RET          int    `json:"ret"`                   // number of [RET], the last of the vocabulary; 0 without heads
	ImageToken   int    `json:"image_token"`           // number of <|image|>, the one before; 0 without heads
	BOS          int    `json:"bos"`                   // number put before a text
	EOS          int    `json:"eos"`                   // number that ends an answer
	Pad          int    `json:"pad"`                   // number that is never generated
	TextLayers   []int  `json:"text_layers,omitempty"` // hidden states that text_hidden_fcs read, in order; none is −1, the last
	HeadsHash    string `json:"heads_hash"`            // which embeddings an index may hold: see Manifest.HeadsHash

	Text TextSettings `json:"text,omitzero"` // of CLIP's text tower
}

// TextSettings are the numbers that CLIP's text tower needs.
type TextSettings struct {
	Vocabulary int `json:"vocabulary"` // rows of its token table
	Positions  int `json:"positions"`  // most tokens of a text, BOS and EOS included
	Dim        int `json:"dim"`        // P: of text and image embeddings
	BOS        int `json:"bos"`        // number put before a text
	EOS        int `json:"eos"`        // number put after a text
	Pool       int `json:"pool"`       // the number whose first place in a text is pooled, PoolHighest for the highest of the text
}

// PoolHighest pools a text at the first place of its highest number, as CLIP's first checkpoints do.
const PoolHighest = -1

// Tensor is where one weight's values are.
type Tensor struct {
	Name   string         `json:"name"`
	Format shaders.Format `json:"format"`
	Shards []Shard        `json:"shards"`
}

// Shard is a run of a tensor's rows small enough for one device buffer.
type Shard struct {
	Rows   int   `json:"rows"`
	Values Blob  `json:"values"`           // Rows × Format.RowBytes bytes, padded with zeros to a multiple of 16
	Scales *Blob `json:"scales,omitempty"` // Rows × Format.ScaleBytes bytes, padded the same; absent for f32 and f16
}

// MaxShard is the most bytes of a shard's values or scales: the binding size that every WebGPU device allows.
const MaxShard = 128 << 20

// ChunkSize is the bytes of a blob that are hashed and handed on at once.
const ChunkSize = 8 << 20

// Blob is a run of bytes within the file.
type Blob struct {
	SHA256 string   `json:"sha256"` // of the whole, lowercase hex: the blob's name
	Offset int64    `json:"offset"` // from the start of the file
	Size   int64    `json:"size"`
	Chunks []string `json:"chunks,omitempty"` // SHA-256 of each ChunkSize bytes, where there is more than one chunk
}
