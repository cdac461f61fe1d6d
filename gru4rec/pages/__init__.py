"""What pages of HTML share: :mod:`gru4rec.pages.file` writes them, :mod:`gru4rec.pages.svg` draws their figures."""
