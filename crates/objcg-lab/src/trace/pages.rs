//! Pages of a column, of which a dictionary is believed only what its bytes can hold.
//!
//! The decoder makes room for as many values as a dictionary's header says, up to 2^31, before it looks at the first.
//! Neighbours: `columns` reads through it.

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// Hands on pages, but for dictionaries that lie.
pub(super) struct HonestPages(pub(super) Box<dyn PageReader>);

impl PageReader for HonestPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.0.get_next_page()?;
        if let Some(Page::DictionaryPage { buf, num_values, .. }) = &page {
            // Plain values: no type of a trace that can have a dictionary takes less than 4 bytes.
            if u64::from(*num_values) * 4 > buf.len() as u64 {
                let reason = format!("a dictionary of {num_values} values in {} bytes", buf.len());
                return Err(ParquetError::General(reason));
            }
        }
        // It is for floating-point numbers, and its decoder panics at lengths that do not fit.
        if page.as_ref().is_some_and(|page| page.encoding() == Encoding::BYTE_STREAM_SPLIT) {
            return Err(ParquetError::General("a page with an encoding that traces do not have".to_owned()));
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }
}

impl Iterator for HonestPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

#[cfg(test)]
mod tests {
    use parquet::basic::Encoding;
    use parquet::column::page::{Page, PageMetadata, PageReader};
    use parquet::errors::Result;

    use super::HonestPages;

    /// Pages with one dictionary of 8 bytes.
    struct OneDictionary(Option<u32>);

    impl PageReader for OneDictionary {
        fn get_next_page(&mut self) -> Result<Option<Page>> {
            Ok(self.0.take().map(|num_values| Page::DictionaryPage {
                buf: vec![0u8; 8].into(),
                num_values,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            }))
        }

        fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
            Ok(None)
        }

        fn skip_next_page(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Iterator for OneDictionary {
        type Item = Result<Page>;

        fn next(&mut self) -> Option<Result<Page>> {
            self.get_next_page().transpose()
        }
    }

    #[test]
    fn a_dictionary_of_more_values_than_its_bytes_hold_is_refused() {
        let next = |num_values| HonestPages(Box::new(OneDictionary(Some(num_values)))).get_next_page();
        assert!(matches!(next(2), Ok(Some(Page::DictionaryPage { num_values: 2, .. }))));
        let error = next(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("a dictionary of 4294967295 values in 8 bytes"), "{error}");
        assert!(next(3).is_err());
    }
}
