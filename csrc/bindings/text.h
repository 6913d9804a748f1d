// hotrow.text's Encoder. Long work lets Ctrl-C through every kStep words, some milliseconds.
#pragma once
#include "bindings/arrays.h"
#include "text/encoder.h"

namespace hotrow {

constexpr int64_t kStep = 1 << 16;

// work() without the GIL until it returns true.
template <class Work>
void until_done(const Work& work) {
    for (bool done = false; !done;) {
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        py::gil_scoped_release nogil;
        done = work();
    }
}

// [(int32[n] tokens, int64[m] ends)]: views that hold until the next call.
inline py::list encoder_pieces(const py::object& self, const std::vector<text::Encoder::Piece>& pieces) {
    py::list views;
    for (const auto& [tokens, count, ends] : pieces)
        views.append(py::make_tuple(py::array_t<int32_t>(count, tokens, self),
                                    py::array_t<int64_t>(int64_t(ends->size()), ends->data(), self)));
    return views;
}

inline void define_encoder(py::module_& m) {
    using text::Encoder;
    py::class_<Encoder>(m, "Encoder")
        .def(py::init<int>())
        .def("feed",
             [](const py::object& self, const py::bytes& block) {
                 auto& encoder = self.cast<Encoder&>();
                 const std::string_view data = block;
                 std::vector<Encoder::Piece> pieces;
                 {
                     py::gil_scoped_release nogil;
                     pieces = encoder.feed(reinterpret_cast<const text::Byte*>(data.data()), int64_t(data.size()));
                 }
                 return encoder_pieces(self, pieces);
             })
        .def("close", [](const py::object& self) { return encoder_pieces(self, self.cast<Encoder&>().close()); })
        .def("vocabulary",
             [](Encoder& encoder, const py::object&) {  // it has counted the words already
                 until_done([&] { return encoder.merge(kStep); });
                 const text::Words& words = encoder.words();
                 return py::make_tuple(py::array_t<int64_t>(words.size(), encoder.counts().data()),
                                       py::array_t<int64_t>(words.size(), words.first().data()));
             })
        .def("words",
             [](const Encoder& encoder, const py::array& ids) {
                 const int64_t* const id = vector<int64_t>(ids);
                 py::list words(ids.size());
                 for (py::ssize_t i = 0; i < ids.size(); ++i) {
                     if (i % kStep == 0 && PyErr_CheckSignals() != 0) throw py::error_already_set();
                     const std::string_view word = encoder.words()[id[i]];
                     words[size_t(i)] = py::str(word.data(), word.size());
                 }
                 return words;
             })
        .def("compact", [](Encoder& encoder, const py::array& number, py::array& tokens, py::array& ends) {
            encoder.renumber(vector<int32_t>(number));
            int32_t* const t = writable_vector<int32_t>(tokens);
            int64_t* const e = writable_vector<int64_t>(ends);
            const int64_t ends_count = ends.size();
            until_done([&] { return encoder.compact(t, e, ends_count, 4 * kStep); });
            return py::make_tuple(encoder.tokens_kept(), encoder.ends_kept());
        });
}

}  // namespace hotrow
