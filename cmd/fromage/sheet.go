// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"net/http"
	"strings"
)

// sheetHTML is the page that exchanges are written as: everything is in it, nothing is loaded.
//
//go:embed sheet.html
var sheetHTML string

var sheetTemplate = template.Must(template.New("sheet").Funcs(template.FuncMap{"data": dataURI, "trim": strings.TrimSpace}).Parse(sheetHTML))

// dataURI is a picture's bytes as an address; "" where it cannot be read from here (an index may name addresses, and files that are elsewhere).
func dataURI(name string) template.URL {
	data, err := readPicture(name)
	if err != nil {
		return ""
	}
	kind := http.DetectContentType(data)
	if !strings.HasPrefix(kind, "image/") {
		return ""
	}
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data))
}

// writeSheet writes exchanges as one page of HTML that holds its pictures.
func writeSheet(w io.Writer, title string, exchanges []exchange) error {
	return sheetTemplate.Execute(w, struct {
		Title     string
		Exchanges []exchange
	}{title, exchanges})
}
